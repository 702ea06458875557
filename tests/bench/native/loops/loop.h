/* What the loops in C have in common: a line "run COUNT" on standard input has them send COUNT
 * APDUs, and a line of JSON on standard output says what that took. Times are seconds, p50 and p99
 * microseconds; "reply" is the last response, hexadecimal. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { APDU_ROOM = 70000 };

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static int compare_times(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* An APDU from its hexadecimal text, or "to:SIZE": an extended APDU with SIZE bytes of data. */
static int read_apdu(const char *text, unsigned char *to)
{
    int n = 0;
    unsigned byte;

    if (!strncmp(text, "to:", 3)) {
        n = atoi(text + 3);
        memset(to, 0xA5, 7 + (size_t)n);
        memcpy(to, "\x00\x20\x00\x00\x00", 5);
        to[5] = (unsigned char)(n >> 8);
        to[6] = (unsigned char)n;
        return 7 + n;
    }
    for (; sscanf(text, "%2x", &byte) == 1; text += 2)
        to[n++] = (unsigned char)byte;
    return n;
}

static void say_ready(void)
{
    printf("{\"ready\": true}\n");
    fflush(stdout);
}

/* The next COUNT asked for; 0 when standard input ends. */
static int next_count(void)
{
    char line[64];
    int count;

    if (fgets(line, sizeof line, stdin) && sscanf(line, "run %d", &count) == 1)
        return count;
    return 0;
}

static void say_result(double wall, double cpu, double p50, double p99, const unsigned char *reply,
                       int size)
{
    printf("{\"wall\": %.9f, \"cpu\": %.9f, \"p50\": %.3f, \"p99\": %.3f, \"reply\": \"", wall, cpu,
           p50, p99);
    for (int i = 0; i < size; i++)
        printf("%02x", reply[i]);
    printf("\"}\n");
    fflush(stdout);
}

/* Send as often as asked; `once` sends one APDU and returns the size of the response. */
static void serve(int (*once)(void), const unsigned char *response)
{
    int count, size = 0;

    say_ready();
    while ((count = next_count()) > 0) {
        double *took = malloc(sizeof *took * (size_t)count), cpu, began, last;

        cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
        began = last = seconds(CLOCK_MONOTONIC);
        for (int i = 0; i < count; i++) {
            size = once();
            double now = seconds(CLOCK_MONOTONIC);
            took[i] = now - last;
            last = now;
        }
        cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        qsort(took, (size_t)count, sizeof *took, compare_times);
        say_result(last - began, cpu, took[count / 2] * 1e6, took[count * 99 / 100] * 1e6, response,
                   size);
        free(took);
    }
}
