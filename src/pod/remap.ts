/**
 * Remapping what a running pod has: descriptors while it stands still, ports and addresses by the rules of its interposer,
 * paths by mounts of its init.
 */
import { FrameType } from "../control/protocol.js";
import { VirtError } from "../errors.js";
import type { Manifest } from "../image/manifest.js";
import type { Data } from "../native.js";
import { checkAddressRemap } from "../remap/address.js";
import { changesOf, parseDescriptorRemaps } from "../remap/descriptor.js";
import { mergeRemaps, type Remap } from "../remap/path.js";
import { Writer } from "../rules/encode.js";
import { rulesOf } from "../rules/interposition.js";
import { openCapture } from "./compose.js";
import { pathRemaps } from "./launch.js";
import type { Pod } from "./pod.js";
import type { PodRecord } from "./store.js";

/** What each step has done is in the record that `changed` is given. @internal */
export async function remapPod(pod: Pod, remap: Remap, changed: (record: PodRecord) => void): Promise<void> {
  const descriptors = parseDescriptorRemaps(remap.fd);
  const paths = pathRemaps(remap.path);
  const ports = { ...pod.record.ports, ...remap.port };
  const addresses = { ...pod.record.addresses, ...remap.addr };
  const checked = checkAddressRemap({ port: ports, addr: addresses });
  if (paths.length > 0 && pod.record.isolate !== undefined)
    throw new VirtError("ERR_ISOLATION", "a pod with rules of what it may see and write keeps its mounts as they are");
  if (descriptors.length > 0) {
    const capture = openCapture(pod, "remap");
    try {
      const survey = (await capture.survey()) as unknown as Manifest;
      await capture.remap(changesOf(survey, descriptors) as unknown as Data);
      await capture.thaw();
    } finally {
      await capture.close();
    }
  }
  if (Object.keys({ ...remap.port, ...remap.addr }).length > 0) {
    const record = { ...pod.record, ports: checked.ports, addresses: checked.addresses };
    await pod.connection.request(FrameType.rules, rulesOf(record));
    changed(record);
  }
  for (const { from, to } of paths) {
    try {
      await pod.connection.request(FrameType.mount, new Writer().text(from).text(to).done());
    } catch (cause) {
      const { errnoName } = cause as VirtError;
      if (errnoName === undefined) throw cause;
      throw new VirtError("ERR_REMAP", `path:${to}=${from} cannot be mounted in the pod (${errnoName})`, {
        path: to,
        errnoName,
        hint: "both must be there, both directories or neither",
        cause,
      });
    }
    changed({ ...pod.record, remaps: mergeRemaps(pod.record.remaps, [{ from, to }]) });
  }
}
