/* Waits for lines on its standard input and answers each with what its library says, and what another of its functions
 * says that is called for the first time then. */
#include <stdio.h>
const char* greeting(void);
const char* farewell(void);
int main(void) {
  char line[100];
  puts("ready");
  fflush(stdout);
  while (fgets(line, sizeof line, stdin) != NULL) {
    printf("%s %s %s", greeting(), farewell(), line);
    fflush(stdout);
  }
  return 0;
}
