/* signal(7): a signal that is ignored by default does not end a wait, not even one that a handled signal would end with
 * EINTR (epoll_wait(2)); children that end all the time are such signals. */
#include "meanwhile.h"

#include <sys/epoll.h>

static volatile int over;

static long wait_for_data(void* arg) {
  struct epoll_event event;
  return epoll_wait(*(int*)arg, &event, 1, -1);
}

static void* make_children(void* arg) {
  while (!over) {
    pid_t child = fork();
    must(child >= 0);
    if (child == 0) _exit(0);
    must(waitpid(child, NULL, 0) == child);
  }
  return arg;
}

int main(void) {
  int p[2], epoll = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN};
  must(epoll >= 0 && pipe(p) == 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, p[0], &event) == 0);
  struct call waiting[4];
  pthread_t children;
  for (int i = 0; i < 4; i++) call_in_thread(&waiting[i], SYS_epoll_wait, wait_for_data, &epoll);
  must(pthread_create(&children, NULL, make_children, NULL) == 0);
  ready();
  for (int i = 0; i < 4; i++) still_inside(&waiting[i]);
  over = 1;
  must(pthread_join(children, NULL) == 0 && write(p[1], "x", 1) == 1);
  for (int i = 0; i < 4; i++) must(end_of_call(&waiting[i]) == 1);
  pass();
}
