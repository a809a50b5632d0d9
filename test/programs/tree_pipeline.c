/* A pipeline as a shell makes it: three processes in one group whose leader is the first of them, bytes on
 * their way, and the end of file that runs through it. */
#include "meanwhile.h"

static void stage(int in, int out, int add) {
  unsigned char byte;
  for (ssize_t n; (n = read(in, &byte, 1)) != 0;) {
    must(n == 1);
    byte = (unsigned char)(byte + add);
    must(write(out, &byte, 1) == 1);
  }
  _exit(0);
}

int main(void) {
  int p[4][2];
  pid_t stages[3];
  for (int i = 0; i < 4; i++) must(pipe2(p[i], O_CLOEXEC) == 0);
  for (int i = 0; i < 3; i++) {
    stages[i] = fork();
    must(stages[i] >= 0);
    if (stages[i] == 0) {
      for (int k = 0; k < 4; k++) {
        if (k != i) close(p[k][0]);
        if (k != i + 1) close(p[k][1]);
      }
      stage(p[i][0], p[i + 1][1], 1 << i);
    }
    must(setpgid(stages[i], stages[0]) == 0);
  }
  for (int i = 0; i < 4; i++) {
    if (i != 3) must(close(p[i][0]) == 0);
    if (i != 0) must(close(p[i][1]) == 0);
  }
  unsigned char byte = 10;
  must(write(p[0][1], &byte, 1) == 1 && read(p[3][0], &byte, 1) == 1 && byte == 17);
  must(write(p[0][1], "abc", 3) == 3);
  ready();
  for (int i = 0; i < 3; i++) must(getpgid(stages[i]) == stages[0]);
  must(close(p[0][1]) == 0);
  for (int i = 0; i < 3; i++) must(read(p[3][0], &byte, 1) == 1 && byte == 'a' + i + 7);
  must(read(p[3][0], &byte, 1) == 0);
  for (int i = 0; i < 3; i++) must(waitpid(-stages[0], NULL, 0) > 0);
  pass();
}
