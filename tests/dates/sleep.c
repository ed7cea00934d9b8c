/* Put before libfaketime 0.9.10: with the monotonic clock left alone its clock_nanosleep still moves
   absolute times of that clock into the past (EINVAL), and time.sleep() of Python 3.11 sleeps so. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left) {
  int before = errno;
  int problem = syscall(SYS_clock_nanosleep, clock, flags, until, left) ? errno : 0;
  errno = before;
  return problem;
}
