/**
 * Addresses as users write them: for a holder, for what becomes of connections by peer, for what a descriptor is to be.
 */
import t from "tap";
import { parseReach } from "../../src/pod/holder.js";
import { parseAddress, showAddress } from "../../src/remap/address.js";
import { parseDescriptorRemaps } from "../../src/remap/descriptor.js";
import { parseTcp } from "../../src/remap/tcp-policy.js";

t.test("addresses and ports", async (t) => {
  for (const [text, is] of [
    ["10.0.0.1", { address: "10.0.0.1" }],
    ["10.0.0.1:7000", { address: "10.0.0.1", port: 7000 }],
    ["10.0.0.1:0", { address: "10.0.0.1", port: 0 }],
    ["fd00::1", { address: "fd00::1" }],
    ["fd00::1:7000", { address: "fd00::1:7000" }],
    ["::", { address: "::" }],
    ["[fd00::1]", { address: "fd00::1" }],
    ["[fd00::1]:65535", { address: "fd00::1", port: 65535 }],
    [":7000", { port: 7000 }],
  ] as const) {
    t.same(parseAddress(text), is, text);
    if ("address" in is && "port" in is) t.equal(showAddress(is), text, `${text} is shown as it is written`);
  }
});

t.test("what is no address", async (t) => {
  for (const text of [
    "",
    ":",
    "[]",
    "here",
    "here:80",
    "10.0.0.1:",
    "10.0.0.1:65536",
    "10.0.0.1:100000",
    "10.0.0.1:-1",
    "10.0.0.1:80:80",
    "10.0.0",
    "[::1",
    "::1]",
    "[::1]80",
    "fd00::1:2:3:4:5:6:7:8",
    " 10.0.0.1",
    "10.0.0.1\n",
  ])
    t.equal(parseAddress(text), undefined, JSON.stringify(text));
});

t.test("where a holder is", async (t) => {
  t.same(parseReach("10.0.0.1"), { address: "10.0.0.1", port: 0 });
  t.same(parseReach("[fd00::1]:7000"), { address: "fd00::1", port: 7000 });
  for (const text of ["here", ":7000", "[::1"]) t.throws(() => parseReach(text), { code: "ERR_USAGE" }, text);
});

t.test("connections by peer", async (t) => {
  t.same(parseTcp(["close", "hold=10.0.0.9:5432", "reconnect=:80", "close=fd00::1", "close=[fd00::1]:7"]), {
    tcp: "close",
    tcpRules: [
      { policy: "hold", address: "10.0.0.9", port: 5432 },
      { policy: "reconnect", port: 80 },
      { policy: "close", address: "fd00::1" },
      { policy: "close", address: "fd00::1", port: 7 },
    ],
  });
  for (const text of ["close=", "close=nowhere", "close=:0", "close=10.0.0.9:70000", "sometimes=10.0.0.9"])
    t.throws(() => parseTcp([text]), { code: "ERR_USAGE" }, text);
});

t.test("what a descriptor is to be", async (t) => {
  const target = (text: string) => parseDescriptorRemaps({ "2/1": text })[0]?.target;
  t.same(target("tcp:10.0.0.9:514"), { kind: "tcp", address: "10.0.0.9", port: 514 });
  t.same(target("tcp:[fd00::1]:514"), { kind: "tcp", address: "fd00::1", port: 514 });
  for (const text of ["tcp:10.0.0.9", "tcp:10.0.0.9:0", "tcp::514", "tcp:here:514", "10.0.0.9:514"])
    t.throws(() => target(text), { code: "ERR_REMAP" }, text);
});
