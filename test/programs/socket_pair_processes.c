/* socketpair(2): the ends in parent and child, and a reader that waits; end of file when the other process
 * ends. */
#include "meanwhile.h"

#include <sys/socket.h>

static long take(void* arg) {
  char c;
  return read(*(int*)arg, &c, 1);
}

int main(void) {
  int s[2], quiet[2];
  must(socketpair(AF_UNIX, SOCK_STREAM, 0, s) == 0 && socketpair(AF_UNIX, SOCK_SEQPACKET, 0, quiet) == 0);
  make_gate();
  pid_t child = fork_at_gate();
  if (child == 0) {
    must(close(s[0]) == 0 && close(quiet[0]) == 0 && write(s[1], "hello", 5) == 5);
    char word[8] = {0};
    must(read(s[1], word, 8) == 5 && strcmp(word, "reply") == 0);
    must(write(s[1], "bye", 3) == 3);
    wait_at_gate();
    _exit(0);
  }
  must(close(s[1]) == 0 && close(quiet[1]) == 0);
  char word[8] = {0};
  must(read(s[0], word, 5) == 5);
  await_call(child, child, SYS_read);
  struct call blocked;
  call_in_thread(&blocked, SYS_read, take, &quiet[0]);
  ready();
  still_inside(&blocked);
  must(write(s[0], "reply", 5) == 5 && read(s[0], word, 8) == 3 && memcmp(word, "bye", 3) == 0);
  open_gate();
  ended_well(child);
  must(read(s[0], word, 1) == 0 && end_of_call(&blocked) == 0);
  pass();
}
