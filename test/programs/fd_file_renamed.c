/* rename(2): a file that got another name since it was opened, and one in a directory that did. */
#include "behaviour.h"

int main(void) {
  must(mkdir(scratch("before"), 0700) == 0);
  int a = open(scratch("old"), O_RDWR | O_CREAT, 0600),
      b = open(scratch("before/inner"), O_RDWR | O_CREAT, 0600);
  must(a >= 0 && b >= 0 && write(a, "one", 3) == 3 && write(b, "two", 3) == 3);
  must(rename(scratch("old"), scratch("new")) == 0 && rename(scratch("before"), scratch("after")) == 0);
  struct stat was, st;
  must(fstat(a, &was) == 0);
  ready();
  char text[8] = {0};
  must(fstat(a, &st) == 0 && st.st_ino == was.st_ino && st.st_dev == was.st_dev);
  must(pread(a, text, 8, 0) == 3 && strcmp(text, "one") == 0);
  must(pread(b, text, 8, 0) == 3 && strcmp(text, "two") == 0);
  must(write(b, "+", 1) == 1 && stat(scratch("after/inner"), &st) == 0 && st.st_size == 4);
  pass();
}
