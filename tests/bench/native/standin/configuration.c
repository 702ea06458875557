/* What the environment says (libusb.c lists the names), and where to count. */
#include <fcntl.h>
#include <sys/mman.h>
#include "standin.h"

struct config config;
static struct counters private_counters;

static long environment(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtol(text, NULL, 0) : otherwise;
}

static void configure(void)
{
    const char *level = getenv("STANDIN_LEVEL"), *speed = getenv("STANDIN_SPEED");
    const char *file = getenv("STANDIN_COUNTERS"), *rate = getenv("STANDIN_RATE");

    config.readers = (int)environment("STANDIN_READERS", 1);
    if (config.readers > MOST_READERS)
        config.readers = MOST_READERS;
    config.level = !level || !strcmp(level, "tpdu") ? LEVEL_TPDU
                   : !strcmp(level, "short")        ? LEVEL_SHORT
                                                    : LEVEL_EXTENDED;
    config.protocol = (int)environment("STANDIN_T", 0);
    config.high = !speed || strcmp(speed, "full");
    config.notify = (int)environment("STANDIN_NOTIFY", 1);
    config.events = (int)environment("STANDIN_EVENTS", 1);
    config.early_ns = environment("STANDIN_EARLY_US", 0) * 1000;
    config.out_ns = environment("STANDIN_OUT_US", 0) * 1000;
    config.in_ns = environment("STANDIN_IN_US", 0) * 1000;
    config.card_ns = environment("STANDIN_CARD_US", 0) * 1000;
    config.frame_ns = environment("STANDIN_FRAME_US", 0) * 1000;
    config.urb_ns = environment("STANDIN_URB_NS", 0);
    config.ns_per_byte = rate && atof(rate) > 0 ? 1000 / atof(rate) : 0;
    config.max_message = (unsigned)environment("STANDIN_MAX", 271);
    config.counters = &private_counters;
    if (file && *file) {
        int fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        void *at = MAP_FAILED;
        if (fd >= 0 && !ftruncate(fd, sizeof(struct counters)))
            at = mmap(NULL, sizeof(struct counters), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (at != MAP_FAILED)
            config.counters = at;
        if (fd >= 0)
            close(fd);
    }
}

void configure_once(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, configure);
}
