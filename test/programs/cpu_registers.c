/* The registers of a thread in the middle of a loop: general ones, the x87 stack and its control word, MXCSR,
 * and the whole of the widest vector registers this CPU has (AVX-512 with its masks, AVX or SSE). */
#include "meanwhile.h"

#include <fenv.h>
#include <immintrin.h>
#include <stdint.h>

static volatile int go, inside;

/* Puts a pattern into the registers, waits for the word, and stores them: no call and no compiler in between.
 */
#define LOOP "movl $1, %[inside]\n1: pause\ncmpl $0, %[go]\nje 1b\n"

__attribute__((target("avx512f,avx512bw"))) static void wide(const char* from, char* to, uint64_t* masks) {
  __asm__ volatile(
      "vmovdqu64 (%[f]), %%zmm0\nvmovdqu64 64(%[f]), %%zmm15\nvmovdqu64 128(%[f]), %%zmm16\nvmovdqu64 "
      "192(%[f]), %%zmm31\n"
      "kmovq (%[f]), %%k1\nkmovq 8(%[f]), %%k7\n" LOOP
      "vmovdqu64 %%zmm0, (%[t])\nvmovdqu64 %%zmm15, 64(%[t])\nvmovdqu64 %%zmm16, 128(%[t])\nvmovdqu64 "
      "%%zmm31, 192(%[t])\n"
      "kmovq %%k1, (%[m])\nkmovq %%k7, 8(%[m])\n"
      : [inside] "=m"(inside)
      : [f] "r"(from), [t] "r"(to), [m] "r"(masks), [go] "m"(go)
      : "memory", "xmm0", "xmm15", "xmm16", "xmm31", "k1", "k7");
}

__attribute__((target("avx"))) static void middle(const char* from, char* to) {
  __asm__ volatile("vmovdqu (%[f]), %%ymm0\nvmovdqu 64(%[f]), %%ymm15\n" LOOP
                   "vmovdqu %%ymm0, (%[t])\nvmovdqu %%ymm15, 64(%[t])\n"
                   : [inside] "=m"(inside)
                   : [f] "r"(from), [t] "r"(to), [go] "m"(go)
                   : "memory", "xmm0", "xmm15");
}

static void narrow(const char* from, char* to) {
  __asm__ volatile("movdqu (%[f]), %%xmm0\nmovdqu 64(%[f]), %%xmm15\n" LOOP
                   "movdqu %%xmm0, (%[t])\nmovdqu %%xmm15, 64(%[t])\n"
                   : [inside] "=m"(inside)
                   : [f] "r"(from), [t] "r"(to), [go] "m"(go)
                   : "memory", "xmm0", "xmm15");
}

static void* spin(void* unused) {
  char from[256], to[256] = {0};
  uint64_t masks[2] = {0};
  for (int i = 0; i < 256; i++) from[i] = (char)(i * 37 + 11);
  _mm_setcsr(0x1f80 | 0x6000 | 0x8000 | 0x3f); /* round to zero, flush to zero, flags up */
  uint16_t control = 0x0e7f, control_now = 0;  /* round up, double precision */
  long double tower = 0;
  __asm__ volatile("fldcw %0\nfldpi\nfldl2e" : : "m"(control));
  size_t width = __builtin_cpu_supports("avx512bw") ? 64 : __builtin_cpu_supports("avx") ? 32 : 16;
  if (width == 64)
    wide(from, to, masks);
  else if (width == 32)
    middle(from, to);
  else
    narrow(from, to);
  __asm__ volatile("fstpt %0\nfstp %%st(0)\nfnstcw %1" : "=m"(tower), "=m"(control_now));
  must(control_now == control && tower > 1.4426950L && tower < 1.4426951L &&
       (_mm_getcsr() & 0xffff) == (0x1f80 | 0x6000 | 0x8000 | 0x3f));
  for (size_t r = 0; r < (width == 64 ? 4 : 2); r++) {
    if (memcmp(from + 64 * r, to + 64 * r, width) != 0)
      fail("vector register %zu of %zu bytes is another", r, width);
  }
  must(width < 64 || memcmp(masks, from, 16) == 0);
  return unused;
}

int main(void) {
  pthread_t t;
  must(pthread_create(&t, NULL, spin, NULL) == 0);
  while (!inside) nap_ms(1);
  ready();
  go = 1;
  must(pthread_join(t, NULL) == 0);
  pass();
}
