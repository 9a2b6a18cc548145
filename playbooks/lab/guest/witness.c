/*
 * witness MAC FILE: what a lab guest does all day.
 *
 * It broadcasts a heartbeat (UDP port 7777) ten times a second, repeats it on the console once a
 * second, and writes a numbered 512-byte record once a second, each one flushed, into FILE (on the
 * root disk) and onto every further disk, plugged now or later, from 16 MiB on. It first says which
 * record it found last on each, and goes on from there: the same guest with the same data counts on.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    RECORD_BYTES = 512,
    RECORDS_MAX = 65536, /* then it begins again at the first place */
    DISK_OFFSET = 16 << 20,
    HEARTBEAT_PORT = 7777,
    HEARTBEATS_PER_SECOND = 10,
};

struct target {
    char path[64];
    volatile int busy;
    int fd;
    off_t offset;
    long places;
    long last;
};

static char boot_id[9];

static double uptime(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void sleep_seconds(double seconds)
{
    struct timespec pause = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (time_t)seconds) * 1e9)};
    nanosleep(&pause, NULL);
}

/* Where records go on this target, and how many fit. */
static int open_target(struct target *target)
{
    struct stat status;
    unsigned long long bytes = 0;

    target->last = 0;
    target->fd = open(target->path, O_RDWR | O_CREAT, 0644);
    if (target->fd < 0 || fstat(target->fd, &status) < 0)
        return -1;
    target->places = RECORDS_MAX;
    target->offset = 0;
    if (S_ISBLK(status.st_mode)) {
        ioctl(target->fd, BLKGETSIZE64, &bytes);
        target->offset = DISK_OFFSET;
        if (bytes < DISK_OFFSET + RECORD_BYTES)
            return -1;
        if ((long)((bytes - DISK_OFFSET) / RECORD_BYTES) < target->places)
            target->places = (bytes - DISK_OFFSET) / RECORD_BYTES;
    }
    return 0;
}

/* The newest record of any earlier boot, told on the console. */
static void find_last(struct target *target)
{
    char record[RECORD_BYTES + 1], newest[RECORD_BYTES + 1] = "none";
    long place, number;

    for (place = 0; place < target->places; place++) {
        if (pread(target->fd, record, RECORD_BYTES, target->offset + place * RECORD_BYTES) != RECORD_BYTES)
            break;
        record[RECORD_BYTES] = 0;
        if (sscanf(record, "RECORD %ld", &number) != 1 || number <= target->last)
            break;
        target->last = number;
        record[strcspn(record, "\n")] = 0;
        strcpy(newest, record);
    }
    printf("GUEST %s last record: %s\n", target->path, newest);
    fflush(stdout);
}

static void *keep_records(void *argument)
{
    struct target *target = argument;
    char record[RECORD_BYTES];
    off_t where;

    if (open_target(target) < 0) {
        printf("GUEST %s cannot hold records\n", target->path);
        return NULL; /* and stays busy: it is not tried again */
    }
    find_last(target);
    for (;;) {
        target->last++;
        memset(record, 0, sizeof record);
        snprintf(record, sizeof record, "RECORD %ld on %s boot %s uptime %.3f\n", target->last, target->path, boot_id, uptime());
        where = target->offset + (target->last - 1) % target->places * RECORD_BYTES;
        if (pwrite(target->fd, record, sizeof record, where) != sizeof record || fdatasync(target->fd) < 0) {
            printf("GUEST %s write error\n", target->path);
            fflush(stdout);
            close(target->fd);
            target->busy = 0;
            return NULL;
        }
        sleep_seconds(1);
    }
}

static void witness(struct target *target)
{
    pthread_t thread;

    target->busy = 1;
    pthread_create(&thread, NULL, keep_records, target);
    pthread_detach(thread);
}

/* Disks besides the first (vda), as they come. */
static void find_disks(void)
{
    static struct target disks['z' - 'b' + 1];
    char letter;

    for (letter = 'b'; letter <= 'z'; letter++) {
        struct target *disk = &disks[letter - 'b'];
        snprintf(disk->path, sizeof disk->path, "/dev/vd%c", letter);
        if (!disk->busy && access(disk->path, F_OK) == 0)
            witness(disk);
    }
}

static int open_heartbeat(void)
{
    int yes = 1, fd = socket(AF_INET, SOCK_DGRAM, 0);

    setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &yes, sizeof yes);
    /* Checksum offload would leave a partial sum that a userspace switch does not finish. */
    setsockopt(fd, SOL_SOCKET, SO_NO_CHECK, &yes, sizeof yes);
    setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "eth0", sizeof "eth0");
    return fd;
}

static void beat(const char *mac)
{
    struct sockaddr_in everyone = {.sin_family = AF_INET, .sin_port = htons(HEARTBEAT_PORT), .sin_addr.s_addr = INADDR_BROADCAST};
    int fd = open_heartbeat();
    char text[200];
    long count;

    for (count = 1;; count++) {
        int length = snprintf(text, sizeof text, "mac=%s boot=%s count=%ld uptime=%.3f", mac, boot_id, count, uptime());
        sendto(fd, text, length, 0, (struct sockaddr *)&everyone, sizeof everyone);
        if (count % HEARTBEATS_PER_SECOND == 0) {
            printf("HEARTBEAT %s\n", text);
            fflush(stdout);
            find_disks();
        }
        sleep_seconds(1.0 / HEARTBEATS_PER_SECOND);
    }
}

int main(int argc, char **argv)
{
    static struct target root;
    FILE *random = fopen("/proc/sys/kernel/random/boot_id", "r");

    if (argc != 3)
        return 2;
    if (random) {
        if (fscanf(random, "%8s", boot_id) != 1)
            strcpy(boot_id, "unknown");
        fclose(random);
    }
    snprintf(root.path, sizeof root.path, "%s", argv[2]);
    witness(&root);
    find_disks();
    beat(argv[1]);
}
