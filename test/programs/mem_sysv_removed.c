/* shmctl(2), IPC_RMID: a System V segment that is marked for destruction lives as long as it is attached: in
 * two processes, and gone afterwards. */
#include "areas.h"
#include "relatives.h"

#include <sys/ipc.h>
#include <sys/shm.h>

static char* p;

static void check(void) { must(check_pattern(p + PAGE, PAGE, 1) == PAGE); }

int main(void) {
  int id = shmget(0x56525402, 8 * PAGE, IPC_CREAT | IPC_EXCL | 0600);
  must(id >= 0);
  p = shmat(id, NULL, 0);
  must(p != (char*)-1 && shmctl(id, IPC_RMID, NULL) == 0);
  fill_pattern(p + PAGE, PAGE, 1);
  pid_t child = relative(NULL, check);
  ready();
  struct shmid_ds d;
  must(shmctl(id, IPC_STAT, &d) == 0 && (d.shm_perm.mode & SHM_DEST) != 0 && d.shm_segsz == 8 * PAGE);
  must(shmget(0x56525402, 0, 0) == -1 && errno == ENOENT); /* its key is gone already */
  check();
  join_relative(child);
  must(shmctl(id, IPC_STAT, &d) == 0 && d.shm_nattch == 1);
  must(shmdt(p) == 0 && shmctl(id, IPC_STAT, &d) == -1);
  pass();
}
