/* Other processes and threads; programs, libraries and sockets in the tree. */
#include "ops.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <wordexp.h>

extern char **environ;
static char *NOTHING[] = { NULL };

static void run(const char *path, char *const *argv, char *const *env)
{
    int status;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        execve(path, argv, env);
        printf("execve %s: %s\n", path, strerrorname_np(errno));
        fflush(stdout);
        _exit(9);
    }
    waitpid(pid, &status, 0);
    printf("status %d\n", status);
}

static char *const SHELL_WRITES[] = { "sh", "-c", "echo by shell > a.txt; rm dir/f1; echo new > fresh; cat a.txt fresh", NULL };

OP(exec_env) { run("/bin/sh", SHELL_WRITES, environ); cat("a.txt"); }
OP(exec_env_cleared) { run("/bin/sh", SHELL_WRITES, NOTHING); cat("a.txt"); stat_line("dir/f1"); }
OP(exec_env_null) { run("/bin/sh", SHELL_WRITES, NULL); cat("a.txt"); }
OP(unsetenv_exec) { unsetenv("LD_PRELOAD"); unsetenv("POOR_CONTAINER_COW"); run("/bin/sh", SHELL_WRITES, environ); cat("a.txt"); }
OP(clearenv_execvp) { clearenv(); fflush(stdout); if (!fork()) { execvp("sh", SHELL_WRITES); _exit(1); } wait(NULL); cat("a.txt"); }
OP(env_i) { char *const argv[] = { "env", "-i", "/bin/sh", "-c", "echo hi > a.txt", NULL }; run("/usr/bin/env", argv, environ); cat("a.txt"); }
OP(exec_script) { char *const argv[] = { "exec.sh", "arg", NULL }; run("./exec.sh", argv, environ); run(in_top("exec.sh"), argv, NOTHING); }
OP(exec_script_changed) { put(open("exec.sh", O_WRONLY | O_TRUNC), "#!/bin/sh\necho changed $0 $1 > out\ncat out\n"); char *const argv[] = { "exec.sh", "arg", NULL }; run("./exec.sh", argv, environ); cat("out"); }
OP(exec_new_script) { put(open("n.sh", O_CREAT | O_WRONLY, 0755), "#!/bin/sh -e\necho new $#\necho x > out\n"); char *const argv[] = { "n.sh", "1", "2", NULL }; run("n.sh", argv, environ); cat("out"); execl("n.sh", "n.sh", NULL); }
OP(exec_interpreter_inside) { put(open("interp", O_CREAT | O_WRONLY, 0755), "#!/bin/sh\necho interp $1 $2\n"); char line[4300]; snprintf(line, sizeof line, "#!%s x\n", in_top("interp")); put(open("s", O_CREAT | O_WRONLY, 0755), line); char *const argv[] = { "s", NULL }; if (strlen(line) < 250) run("./s", argv, environ); R(unlink("s")); }
OP(exec_errors) { char *const argv[] = { "x", NULL }; run("a.txt", argv, environ); run("no", argv, environ); run("dir", argv, environ); R(unlink("exec.sh")); run("./exec.sh", argv, environ); R(chmod("a.txt", 0755)); run("./a.txt", argv, environ); }
OP(exec_noexec_search) { put(open("plain", O_CREAT | O_WRONLY, 0755), "echo plain > out\n"); setenv("PATH", top, 1); fflush(stdout); if (!fork()) { execlp("plain", "plain", NULL); _exit(7); } wait(NULL); cat("out"); }
OP(execle) { fflush(stdout); if (!fork()) { execle("/bin/sh", "sh", "-c", "echo $A > a.txt", NULL, (char *const[]){ "A=b", NULL }); _exit(1); } wait(NULL); cat("a.txt"); }
OP(fexecve) { fflush(stdout); if (!fork()) { fexecve(open("/bin/sh", O_RDONLY | O_CLOEXEC), SHELL_WRITES, NOTHING); _exit(1); } wait(NULL); cat("a.txt"); }
OP(vfork_exec)
{
    fflush(stdout);
    pid_t pid = vfork();
    if (pid == 0) {
        execve("/bin/sh", SHELL_WRITES, NOTHING);
        _exit(1);
    }
    waitpid(pid, NULL, 0);
    cat("a.txt");
}
OP(vfork_chdir)
{
    fflush(stdout);
    cat("a.txt");
    pid_t pid = vfork();
    if (pid == 0) {
        if (chdir("dir") == 0)
            execl("/bin/sh", "sh", "-c", "echo in dir > made", NULL);
        _exit(1);
    }
    waitpid(pid, NULL, 0);
    put(open("made", O_CREAT | O_WRONLY, 0644), "in top");
    cat("made"), cat("dir/made");
}
/* What it prints comes before what is said of the call. */
static int ended(int error, const pid_t *pid)
{
    if (error == 0)
        waitpid(*pid, NULL, 0);
    return error;
}
OP(posix_spawn)
{
    pid_t pid;
    R(ended(posix_spawn(&pid, "/bin/sh", NULL, NULL, SHELL_WRITES, NOTHING), &pid));
    cat("a.txt");
    R(ended(posix_spawnp(&pid, "sh", NULL, NULL, SHELL_WRITES, environ), &pid));
    R(posix_spawn(&pid, "no", NULL, NULL, SHELL_WRITES, environ));
}
OP(spawn_file_action)
{
    pid_t pid;
    posix_spawn_file_actions_t fa;
    posix_spawn_file_actions_init(&fa);
    R(posix_spawn_file_actions_addopen(&fa, 1, "a.txt", O_WRONLY | O_TRUNC, 0));
    R(posix_spawn_file_actions_addopen(&fa, 0, "dir/f1", O_RDONLY, 0));
    R(posix_spawn(&pid, "/bin/cat", &fa, NULL, (char *const[]){ "cat", NULL }, environ));
    waitpid(pid, NULL, 0);
    cat("a.txt");
    R(posix_spawn_file_actions_addopen(&fa, 5, "no/x", O_RDONLY, 0));
    R(posix_spawn(&pid, "/bin/cat", &fa, NULL, (char *const[]){ "cat", NULL }, environ));
}
OP(spawn_chdir_action)
{
    pid_t pid;
    posix_spawn_file_actions_t fa;
    posix_spawn_file_actions_init(&fa);
    R(posix_spawn_file_actions_addchdir_np(&fa, "dir"));
    R(posix_spawn_file_actions_addopen(&fa, 1, "made", O_WRONLY | O_CREAT, 0644));
    R(posix_spawn(&pid, "/bin/sh", &fa, NULL, (char *const[]){ "sh", "-c", "echo $PWD | wc -l; cat f1", NULL }, environ));
    waitpid(pid, NULL, 0);
    cat("dir/made");
}
OP(spawn_closefrom_action)
{
    pid_t pid;
    posix_spawn_file_actions_t fa;
    char *const shell[] = { "sh", "-c", "for i in 0 1 2 3 4 5 6 7 50; do [ -h /proc/$$/fd/$i ] && echo $i; done; cat f1", NULL };
    const int left = fcntl(0, F_DUPFD, 50);
    posix_spawn_file_actions_init(&fa);
    R(posix_spawn_file_actions_addopen(&fa, 7, "a.txt", O_RDONLY, 0));
    R(posix_spawn_file_actions_addclosefrom_np(&fa, 3));
    R(posix_spawn_file_actions_addchdir_np(&fa, "dir"));
    R(posix_spawn_file_actions_addopen(&fa, 1, "made", O_WRONLY | O_CREAT, 0644));
    R(posix_spawn_file_actions_adddup2(&fa, 1, 2));
    R(posix_spawn_file_actions_adddup2(&fa, 1, 5));
    R(ended(posix_spawn(&pid, "/bin/sh", &fa, NULL, shell, environ), &pid));
    cat("dir/made");
    R(posix_spawn_file_actions_addclosefrom_np(&fa, 4));
    R(ended(posix_spawn(&pid, "/bin/sh", &fa, NULL, shell, environ), &pid));
    cat("dir/made");
    close(left);
}
OP(spawn_many_actions)
{
    pid_t pid;
    posix_spawn_file_actions_t fa;
    posix_spawn_file_actions_init(&fa);
    for (int i = 0; i < 150; i++)
        if (posix_spawn_file_actions_addopen(&fa, i % 2, i % 2 ? "dir/f1" : "a.txt", i % 2 ? O_WRONLY | O_APPEND : O_RDONLY, 0) != 0)
            abort();
    R(ended(posix_spawn(&pid, "/bin/cat", &fa, NULL, (char *const[]){ "cat", NULL }, environ), &pid));
    cat("dir/f1");
}
static void spawn_by_numbers(const int *number)
{
    pid_t pid;
    char script[200];
    posix_spawn_file_actions_t fa;
    posix_spawn_file_actions_init(&fa);
    R(posix_spawn_file_actions_addopen(&fa, number[0], "a.txt", O_RDONLY, 0));
    R(posix_spawn_file_actions_addopen(&fa, number[1], "dir/made", O_WRONLY | O_CREAT, 0644));
    R(posix_spawn_file_actions_adddup2(&fa, number[0], 0));
    R(posix_spawn_file_actions_addclose(&fa, number[0]));
    R(posix_spawn_file_actions_addchdir_np(&fa, "dir"));
    R(posix_spawn_file_actions_addopen(&fa, number[2], "f1", O_RDONLY, 0));
    snprintf(script, sizeof script, "cat - <&0 >&%d; cat <&%d >&%d; test -e /dev/fd/%d || echo closed >&%d", number[1], number[2],
             number[1], number[0], number[1]);
    R(ended(posix_spawn(&pid, "/bin/sh", &fa, NULL, (char *const[]){ "sh", "-c", script, NULL }, environ), &pid));
    posix_spawn_file_actions_destroy(&fa);
    cat("dir/made");
}
OP(spawn_numbers) { spawn_by_numbers((int[]){ 3, 4, 5 }), spawn_by_numbers((int[]){ 9, 8, 7 }); }
OP(spawn_few_descriptors)
{
    const struct rlimit few = { 12, 12 };
    R(setrlimit(RLIMIT_NOFILE, &few));
    spawn_by_numbers((int[]){ 3, 4, 5 }), spawn_by_numbers((int[]){ 9, 8, 7 });
}
OP(system) { fflush(stdout); R(system("echo sys > a.txt")); cat("a.txt"); R(system("exit 3") >> 8); R(system(NULL)); clearenv(); R(system("echo cleared > dir/f1")); cat("dir/f1"); }
OP(popen) { FILE *f = popen("cat > a.txt", "w"); R(fputs("piped", f)); R(pclose(f)); cat("a.txt"); f = popen("cat a.txt; exit 4", "r"); char t[64] = ""; R(fgets(t, 64, f) != NULL); puts(t); R(pclose(f) >> 8); R(popen("x", "q") != NULL); }
static void write_in_child(void) { put(open("a.txt", O_WRONLY | O_TRUNC), "child"); R(unlink("dir/f1")); R(mkdir("cd", 0755)); }
OP(fork) { in_child(write_in_child); cat("a.txt"); stat_line("dir/f1"); list("."); }
static void *thread(void *arg)
{
    char name[64], *base = arg;
    for (int i = 0; i < 60; i++) {
        snprintf(name, sizeof name, "dir/%s%d", base, i);
        int fd = open(name, O_CREAT | O_WRONLY, 0644);
        if (write(fd, base, 1) != 1)
            abort();
        close(fd);
        if (i % 3 == 0)
            unlink(name);
        fd = open("a.txt", O_WRONLY | O_APPEND);
        if (write(fd, "x", 1) != 1)
            abort();
        close(fd);
    }
    return NULL;
}
OP(threads)
{
    pthread_t t[4];
    char *names[] = { "p", "q", "r", "s" };
    for (int i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, thread, names[i]);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    list("dir");
    stat_line("a.txt");
}
static volatile int handled;
static void handler(int sig)
{
    (void)sig;
    int fd = open("sig", O_CREAT | O_WRONLY | O_APPEND, 0644);
    if (fd >= 0 && write(fd, "s", 1) == 1)
        handled++;
    close(fd);
}
/* With a signal every 200 us. Without SA_RESTART a call may be interrupted where it waits for somebody, and that is no failure. */
static void under_signals(int flags)
{
    struct sigaction sa = { .sa_handler = handler, .sa_flags = flags };
    int failed = 0;
    sigaction(SIGALRM, &sa, NULL);
    ualarm(200, 200);
    for (int i = 0; i < 400; i++) {
        char name[64];
        struct stat st;
        snprintf(name, sizeof name, "dir/s%d", i);
        int fd = open(name, O_CREAT | O_WRONLY, 0644);
        const int interrupted = fd < 0 && errno == EINTR;
        failed += fd < 0 && !interrupted;
        close(fd);
        failed += unlink(name) < 0 && errno != EINTR && !(interrupted && errno == ENOENT);
        failed += stat("dir/f1", &st) < 0 && errno != EINTR;
    }
    ualarm(0, 0);
    R(failed);
    struct stat st;
    R(stat("sig", &st) != 0 || st.st_size == handled);
    R(unlink("sig") * 0);
    list("dir");
}
OP(signals) { under_signals(0); }
OP(signals_restart) { under_signals(SA_RESTART); }
OP(unix_socket)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX, .sun_path = "dir/sock" }, b;
    socklen_t size = sizeof b;
    int s = socket(AF_UNIX, SOCK_STREAM, 0), c = socket(AF_UNIX, SOCK_STREAM, 0), d = socket(AF_UNIX, SOCK_DGRAM, 0);
    R(bind(s, (struct sockaddr *)&a, sizeof a)), R(listen(s, 1));
    stat_line("dir/sock");
    R(connect(c, (struct sockaddr *)&a, sizeof a));
    R(bind(c, (struct sockaddr *)&a, sizeof a));
    R(bind(d, (struct sockaddr *)&a, sizeof a));
    strcpy(a.sun_path, "emptydir/dgram");
    R(bind(d, (struct sockaddr *)&a, sizeof a));
    int e = socket(AF_UNIX, SOCK_DGRAM, 0);
    R(sendto(e, "hi", 2, 0, (struct sockaddr *)&a, sizeof a));
    char t[4];
    R(recv(d, t, 4, 0));
    R(getsockname(d, (struct sockaddr *)&b, &size));
    printf("%.14s\n", b.sun_path + (strlen(b.sun_path) > 14 ? strlen(b.sun_path) - 14 : 0));
    R(unlink("dir/sock")), stat_line("dir/sock");
    strcpy(a.sun_path, "no/such");
    R(connect(e, (struct sockaddr *)&a, sizeof a));
}
OP(inotify)
{
    char events[4096];
    int fd = inotify_init1(IN_NONBLOCK);
    R(inotify_add_watch(fd, "dir", IN_CREATE | IN_DELETE) > 0);
    R(inotify_add_watch(fd, "a.txt", IN_MODIFY) > 0);
    put(open("dir/w", O_CREAT | O_WRONLY, 0644), "x");
    put(open("a.txt", O_WRONLY | O_APPEND), "x");
    ssize_t got = read(fd, events, sizeof events);
    int n = 0;
    for (ssize_t at = 0; at < got; at += (ssize_t)(sizeof(struct inotify_event) + ((struct inotify_event *)(events + at))->len), n++)
        printf("%x %s\n", ((struct inotify_event *)(events + at))->mask, ((struct inotify_event *)(events + at))->len ? ((struct inotify_event *)(events + at))->name : "");
    R(n), R(inotify_add_watch(fd, "no", IN_CREATE));
}
OP(dlopen)
{
    R(dlopen(in_top("no.so"), RTLD_NOW) != NULL);
    R(dlopen("libm.so.6", RTLD_NOW) != NULL);
    int in = open("/proc/self/exe", O_RDONLY);
    R(in >= 0);
}
OP(lock) { int a = open("a.txt", O_RDWR), b = open("a.txt", O_RDWR); struct flock l = { .l_type = F_WRLCK }; R(fcntl(a, F_OFD_SETLK, &l)); R(fcntl(b, F_OFD_SETLK, &l)); }
static void inner(void) { R(daemon(1, 1)); char path[4200]; R(strcmp(getcwd(path, sizeof path), in_top("dir"))); put(open("by-daemon", O_CREAT | O_WRONLY, 0644), "d"); }
OP(daemon) { R(chdir("dir")); in_child(inner); for (int i = 0; i < 200 && access("by-daemon", F_OK) < 0; i++) usleep(10000); usleep(20000); R(chdir("..")); cat("dir/by-daemon"); }
OP(inner_relative)
{
    /* What libc opens inside itself, in the current directory; here by a call that nothing wraps. */
    R(chdir("d"));
    pid_t pid = fork();
    if (pid == 0) {
        FILE *f = fopen("core", "w");
        fclose(f);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    list(".");
}
OP(wordexp)
{
    wordexp_t w;
    R(wordexp("$(echo by a shell > a.txt; cat a.txt) $HOME/x", &w, 0)), R(w.we_wordc);
    cat("a.txt");
}
OP(wordexp_cleared)
{
    wordexp_t w;
    clearenv();
    if (wordexp("$(echo by a shell > a.txt)", &w, 0) != 0) /* refused below the library, and done on a plain copy */
        close(creat("a.txt", 0644)), system("echo by a shell > a.txt");
    cat("a.txt");
}
