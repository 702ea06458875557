/* pthread_cond_wait with spurious wake-ups, which POSIX allows: each wait ends after 0.1 s at most.
   QEMU's thread for libcacard's card (ccid-card-emulated) looks for APDUs only after its condition
   was signalled, and a signal that comes while the thread still ends the APDU before is lost: on a
   busy machine one in some thousands. The card then says nothing until the next APDU, which does not
   come, because the driver waits for the answer. tools/lab/qemu.py loads this into QEMU. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <time.h>

#define LONGEST_NS 100000000L
#define SECOND_NS 1000000000L

int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
{
    struct timespec end;
    int error;

    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_nsec += LONGEST_NS;
    if (end.tv_nsec >= SECOND_NS) {
        end.tv_nsec -= SECOND_NS;
        end.tv_sec++;
    }
    error = pthread_cond_clockwait(condition, mutex, CLOCK_MONOTONIC, &end);
    return error == ETIMEDOUT ? 0 : error;
}
