// What the kernel itself costs: the calls that no container can do without, and nothing else.
//
//   floor run ROOTFS NAME HIERARCHY…   a container of /bin/true, from clone to the end of its groups
//   floor peak PROGRAM ARGS…           the most memory PROGRAM had resident, in KiB
//
// For `bench start`: the same namespaces, mounts, devices, groups and limits as the bundle that
// the runtimes are given, without reading a configuration, without records, without checks.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static void need(int good, const char *what) {
  if (!good) {
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    _exit(1);
  }
}

static void write_file(const char *directory, const char *name, const char *text) {
  char path[512];
  snprintf(path, sizeof path, "%s/%s", directory, name);
  int file = open(path, O_WRONLY | O_CLOEXEC);
  need(file >= 0 && write(file, text, strlen(text)) >= 0, path);
  close(file);
}

static void inside(const char *rootfs, int go) {
  need(setsid() >= 0, "setsid");
  need(!mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL), "slave");
  need(!mount(rootfs, rootfs, NULL, MS_BIND | MS_REC, NULL), "bind");
  need(!chdir(rootfs), "chdir");
  need(!mount("proc", "proc", "proc", 0, NULL), "proc");
  need(!mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"), "dev");
  mkdir("dev/pts", 0755), mkdir("dev/shm", 0755), mkdir("dev/mqueue", 0755);
  need(!mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
              "newinstance,ptmxmode=0666,mode=0620"), "devpts");
  need(!mount("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NOEXEC | MS_NODEV,
              "mode=1777,size=65536k"), "shm");
  need(!mount("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL), "mqueue");
  need(!mount("sysfs", "sys", "sysfs", MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RDONLY, NULL), "sys");
  static const struct { const char *name; int major, minor; } nodes[] = {
      {"dev/null", 1, 3}, {"dev/zero", 1, 5}, {"dev/full", 1, 7},
      {"dev/random", 1, 8}, {"dev/urandom", 1, 9}, {"dev/tty", 5, 0}};
  for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++)
    need(!mknod(nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)), "mknod");
  need(!sethostname("bench", 5), "hostname");
  static const char *readonly[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys"};
  for (size_t i = 0; i < sizeof readonly / sizeof *readonly; i++) {
    need(!mount(readonly[i], readonly[i], NULL, MS_BIND | MS_REC, NULL), "read-only");
    need(!mount(NULL, readonly[i], NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL), "read-only");
  }
  static const char *masked[] = {"proc/kcore", "proc/keys", "proc/timer_list"};
  for (size_t i = 0; i < sizeof masked / sizeof *masked; i++)
    if (!access(masked[i], F_OK)) need(!mount("dev/null", masked[i], NULL, MS_BIND, NULL), "mask");
  if (!access("sys/firmware", F_OK))
    need(!mount("tmpfs", "sys/firmware", "tmpfs", MS_RDONLY, NULL), "mask");
  need(!syscall(SYS_pivot_root, ".", "."), "pivot_root");
  need(!umount2(".", MNT_DETACH), "umount");
  need(!chdir("/"), "chdir");
  need(!mount(NULL, "/", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL), "read-only root");
  char byte;
  need(read(go, &byte, 1) == 1, "waiting for the groups");
  need(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
  char *arguments[] = {"/bin/true", NULL}, *environment[] = {"PATH=/bin", NULL};
  execve(arguments[0], arguments, environment);
  need(0, "execve");
}

static int run(char **words, int count) {
  const char *rootfs = words[0], *name = words[1];
  char **hierarchies = words + 2, group[512], text[32];
  int groups = count - 2, go[2];
  for (int i = 0; i < groups; i++) {
    snprintf(group, sizeof group, "%s/%s", hierarchies[i], name);
    need(!mkdir(group, 0755), group);
    if (strstr(hierarchies[i], "cpuset")) write_file(group, "cpuset.mems", "0");
    if (strstr(hierarchies[i], "cpuset")) write_file(group, "cpuset.cpus", "0");
    if (strstr(hierarchies[i], "devices")) write_file(group, "devices.deny", "a");
    if (strstr(hierarchies[i], "devices")) write_file(group, "devices.allow", "c *:* rwm");
  }
  need(!pipe2(go, O_CLOEXEC), "pipe");
  struct clone_args arguments = {
      .flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET,
      .exit_signal = SIGCHLD};
  pid_t child = syscall(SYS_clone3, &arguments, sizeof arguments);
  need(child >= 0, "clone3");
  if (!child) inside(rootfs, go[0]);
  snprintf(text, sizeof text, "%d", child);
  for (int i = 0; i < groups; i++) {
    snprintf(group, sizeof group, "%s/%s", hierarchies[i], name);
    write_file(group, "cgroup.procs", text);
  }
  need(write(go[1], "", 1) == 1, "letting it go");
  int status;
  need(waitpid(child, &status, 0) == child, "waitpid");
  for (int i = 0; i < groups; i++) {
    snprintf(group, sizeof group, "%s/%s", hierarchies[i], name);
    while (rmdir(group) && errno == EBUSY) usleep(100);
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static int peak(char **words) {
  pid_t child = fork();
  need(child >= 0, "fork");
  if (!child) {
    execv(words[0], words);
    need(0, words[0]);
  }
  int status;
  struct rusage usage;
  need(wait4(child, &status, 0, &usage) == child, "wait4");
  printf("%ld\n", usage.ru_maxrss);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(int count, char **words) {
  if (count >= 4 && !strcmp(words[1], "run")) return run(words + 2, count - 2);
  if (count >= 3 && !strcmp(words[1], "peak")) return peak(words + 2);
  fprintf(stderr, "usage: floor run ROOTFS NAME HIERARCHY… | floor peak PROGRAM ARGS…\n");
  return 2;
}
