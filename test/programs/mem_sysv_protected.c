/* shmat(2) and mprotect(2): a System V segment that is attached writable, pieces of it protected in between:
 * the pieces keep their protection and can be made writable again; one attached read-only cannot. */
#include "areas.h"

#include <sys/ipc.h>
#include <sys/shm.h>

int main(void) {
  int id = shmget(IPC_PRIVATE, 6 * PAGE, IPC_CREAT | 0600);
  must(id >= 0);
  char *p = shmat(id, NULL, 0), *r = shmat(id, NULL, SHM_RDONLY);
  must(p != (char*)-1 && r != (char*)-1);
  fill_pattern(p, 6 * PAGE, 1);
  must(mprotect(p + 2 * PAGE, PAGE, PROT_READ) == 0 && mprotect(p + 3 * PAGE, PAGE, PROT_NONE) == 0);
  ready();
  struct area a;
  must(find_area(p, &a) && strcmp(a.mode, "rw-s") == 0 && a.end == (uintptr_t)p + 2 * PAGE);
  must(find_area(p + 2 * PAGE, &a) && strcmp(a.mode, "r--s") == 0 && find_area(p + 3 * PAGE, &a) &&
       strcmp(a.mode, "---s") == 0);
  must(find_area(p + 4 * PAGE, &a) && strcmp(a.mode, "rw-s") == 0 && find_area(r, &a) &&
       strcmp(a.mode, "r--s") == 0);
  must(mprotect(p, 6 * PAGE, PROT_READ | PROT_WRITE) == 0 && check_pattern(p, 6 * PAGE, 1) == 6 * PAGE);
  p[0] = 'w';
  must(r[0] == 'w' && mprotect(r, PAGE, PROT_READ | PROT_WRITE) == -1 && errno == EACCES);
  must(shmctl(id, IPC_RMID, NULL) == 0 && shmdt(r) == 0 && shmdt(p) == 0);
  pass();
}
