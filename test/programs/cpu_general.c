/* The general registers, the flags and the FS and GS bases of a thread in the middle of a loop. */
#include "meanwhile.h"

#include <asm/prctl.h>
#include <stdint.h>

volatile int go, inside; /* global: the assembly names them */

static void* spin(void* unused) {
  static char area[64];
  uint64_t out[12] = {0}, base = 0;
  must(syscall(SYS_arch_prctl, ARCH_SET_GS, area) == 0);
  __asm__ volatile(
      "pushq %%rbp\nmovq %[out], %%rdi\nmovabsq $0x1111222233334444, %%rax\nleaq 1(%%rax), %%rbx\nleaq "
      "2(%%rax), %%rcx\n"
      "leaq 3(%%rax), %%rdx\nleaq 4(%%rax), %%rsi\nleaq 5(%%rax), %%r8\nleaq 6(%%rax), %%r9\nleaq 7(%%rax), "
      "%%r10\n"
      "leaq 8(%%rax), %%r11\nleaq 9(%%rax), %%r12\nleaq 10(%%rax), %%r15\nleaq 11(%%rax), %%rbp\n"
      "movl $1, inside(%%rip)\nstd\n1: pause\ncmpl $0, go(%%rip)\nje 1b\npushfq\ncld\n"
      "movq %%rbx, (%%rdi)\nmovq %%rcx, 8(%%rdi)\nmovq %%rdx, 16(%%rdi)\nmovq %%rsi, 24(%%rdi)\nmovq %%r8, "
      "32(%%rdi)\n"
      "movq %%r9, 40(%%rdi)\nmovq %%r10, 48(%%rdi)\nmovq %%r11, 56(%%rdi)\nmovq %%r12, 64(%%rdi)\nmovq "
      "%%r15, 72(%%rdi)\n"
      "movq %%rbp, 80(%%rdi)\npopq 88(%%rdi)\npopq %%rbp\n"
      :
      : [out] "r"(out)
      : "memory", "cc", "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r15");
  for (uint64_t i = 0; i < 11; i++) {
    if (out[i] != 0x1111222233334444 + i + 1) fail("register %d is %lx", (int)i, out[i]);
  }
  must((out[11] & 0x400) != 0); /* the direction flag */
  must(syscall(SYS_arch_prctl, ARCH_GET_GS, &base) == 0 && base == (uint64_t)area);
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
