/* Included before plug.c: system calls of the plug that fail for want of something. The call that
 * plug_fail counts down to fails, with the error that it is given. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int calls_left = -1, error_to_give;

__attribute__((visibility("default"))) void plug_fail(int calls, int error);
__attribute__((visibility("default"))) int plug_left(void);

void plug_fail(int calls, int error)
{
	error_to_give = error;
	calls_left = calls;
}

/* How many calls are left before one fails; below 0: it has failed. */
int plug_left(void)
{
	return calls_left;
}

static int fails(void)
{
	if (calls_left < 0 || calls_left-- > 0)
		return 0;
	errno = error_to_give;
	return 1;
}

#define socketpair(...) (fails() ? -1 : socketpair(__VA_ARGS__))
#define pipe2(...) (fails() ? -1 : pipe2(__VA_ARGS__))
#define pipe(...) (fails() ? -1 : pipe(__VA_ARGS__))
#define sendmsg(...) (fails() ? -1 : sendmsg(__VA_ARGS__))
#define recvmsg(...) (fails() ? -1 : recvmsg(__VA_ARGS__))
#define fcntl(...) (fails() ? -1 : fcntl(__VA_ARGS__))
#define poll(...) (fails() ? -1 : poll(__VA_ARGS__))
#define recv(...) (fails() ? -1 : recv(__VA_ARGS__))
#define fopen(...) (fails() ? NULL : fopen(__VA_ARGS__))
#define posix_spawn(...) (fails() ? errno : posix_spawn(__VA_ARGS__))
#define posix_spawnattr_init(...) (fails() ? errno : posix_spawnattr_init(__VA_ARGS__))
#define posix_spawn_file_actions_init(...) \
	(fails() ? errno : posix_spawn_file_actions_init(__VA_ARGS__))
#define posix_spawn_file_actions_addopen(...) \
	(fails() ? errno : posix_spawn_file_actions_addopen(__VA_ARGS__))
#define posix_spawn_file_actions_adddup2(...) \
	(fails() ? errno : posix_spawn_file_actions_adddup2(__VA_ARGS__))
