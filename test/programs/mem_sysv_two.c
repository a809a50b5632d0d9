/* shmget(2), shmat(2): a System V segment attached by two processes at different addresses: id, key, size,
 * mode and number of attachments, one memory; a third process finds it by its key. */
#include "areas.h"
#include "relatives.h"

#include <sys/ipc.h>
#include <sys/shm.h>

static const key_t key = 0x56525401;
static int id;
static char* p;

static void prepare(void) {
  must(shmdt(p) == 0);
  p = shmat(id, NULL, 0);
  must(p != (char*)-1);
  fill_pattern(p + 2 * PAGE, PAGE, 2);
}

static void check(void) {
  must(check_pattern(p + PAGE, PAGE, 1) == PAGE && check_pattern(p + 2 * PAGE, PAGE, 2) == PAGE);
  while (__atomic_load_n(p, __ATOMIC_ACQUIRE) != 'p') nap_ms(1);
  __atomic_store_n(p, 'c', __ATOMIC_RELEASE);
}

int main(void) {
  id = shmget(key, 100000, IPC_CREAT | IPC_EXCL | 0640);
  must(id >= 0);
  p = shmat(id, NULL, 0);
  must(p != (char*)-1);
  fill_pattern(p + PAGE, PAGE, 1);
  pid_t child = relative(prepare, check);
  ready();
  struct shmid_ds d;
  must(shmctl(id, IPC_STAT, &d) == 0);
  must(d.shm_perm.__key == key && (d.shm_perm.mode & 0777) == 0640 && d.shm_segsz == 100000 &&
       d.shm_nattch == 2);
  must(d.shm_perm.uid == geteuid() && d.shm_perm.cuid == geteuid());
  must(check_pattern(p + PAGE, PAGE, 1) == PAGE && check_pattern(p + 2 * PAGE, PAGE, 2) == PAGE);
  must(shmget(key, 0, 0) == id);
  char* again = shmat(id, NULL, SHM_RDONLY);
  must(again != (char*)-1 && check_pattern(again + PAGE, PAGE, 1) == PAGE);
  __atomic_store_n(p, 'p', __ATOMIC_RELEASE);
  join_relative(child);
  must(again[0] == 'c');
  must(shmdt(again) == 0 && shmdt(p) == 0 && shmctl(id, IPC_RMID, NULL) == 0);
  must(shmget(key, 0, 0) == -1 && errno == ENOENT);
  pass();
}
