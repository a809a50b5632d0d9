// Calls the C library through koffi, as programs with native bindings do: functions, a struct, memory of malloc, and
// a callback into JavaScript. Everything that was looked up before stays valid; says so once a moment.
import koffi from "koffi";

const libc = koffi.load("libc.so.6");
const getpid = libc.func("int getpid()");
const malloc = libc.func("void *malloc(size_t size)");
const strcpy = libc.func("void *strcpy(void *to, const char *from)");
const strlen = libc.func("size_t strlen(const void *text)");
const Comparer = koffi.proto("int Comparer(const void *a, const void *b)");
const qsort = libc.func("qsort", "void", [koffi.inout("int *"), "size_t", "size_t", koffi.pointer(Comparer)]);
const timespec = koffi.struct("timespec", { tv_sec: "int64_t", tv_nsec: "int64_t" });
const clockGettime = libc.func("clock_gettime", "int", ["int", koffi.out(koffi.pointer(timespec))]);
const compare = koffi.register((a, b) => koffi.decode(a, "int") - koffi.decode(b, "int"), koffi.pointer(Comparer));

const pid = getpid();
const kept = malloc(64);
strcpy(kept, "kept in the C heap");
let last = 0;

function look() {
  const numbers = [5, 3, 4, 1, 2];
  qsort(numbers, numbers.length, 4, compare);
  const now = {};
  clockGettime(1, now);
  const ms = Number(now.tv_sec) * 1000 + Number(now.tv_nsec) / 1e6;
  const right =
    getpid() === pid && process.pid === pid && strlen(kept) === 18 && numbers.join("") === "12345" && ms >= last;
  last = ms;
  console.log(right ? "right" : `wrong: ${getpid()} ${strlen(kept)} ${numbers} ${ms} ${last}`);
}
setInterval(look, 20);
