/* System calls by number. See syscalls.h. */
#define _GNU_SOURCE
#include "io/syscalls.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define COUNT(list) (sizeof(list) / sizeof *(list))

/* The first seven are those that sessions make most. Some are looked at closer, below. */
const int syscalls_allowed[] = {
	SYS_sendto, SYS_recvfrom, SYS_ppoll, SYS_read, SYS_write, SYS_close, SYS_writev,
	SYS_accept4, SYS_bind, SYS_brk, SYS_capset, SYS_clock_gettime, SYS_clock_nanosleep, SYS_clone, SYS_close_range, SYS_connect, SYS_dup, SYS_dup3, SYS_exit,
	SYS_exit_group, SYS_faccessat, SYS_fallocate, SYS_fcntl, SYS_fstat, SYS_fstatfs, SYS_ftruncate, SYS_futex, SYS_getdents64, SYS_getegid,
	SYS_geteuid, SYS_getgid, SYS_getpeername, SYS_getpid, SYS_getppid, SYS_getrandom, SYS_getsockname, SYS_getsockopt, SYS_gettid,
	SYS_gettimeofday, SYS_getuid, SYS_ioctl, SYS_kill, SYS_linkat, SYS_listen, SYS_lseek, SYS_madvise, SYS_memfd_create, SYS_mmap, SYS_mprotect, SYS_mremap, SYS_munmap,
	SYS_nanosleep, SYS_newfstatat, SYS_openat, SYS_pidfd_open, SYS_pipe2, SYS_prctl, SYS_pread64, SYS_preadv, SYS_prlimit64, SYS_pwrite64, SYS_readlinkat, SYS_readv,
	SYS_recvmsg, SYS_restart_syscall, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigtimedwait, SYS_sched_getaffinity,
	SYS_sched_yield, SYS_sendmsg, SYS_setitimer, SYS_setsockopt, SYS_shutdown, SYS_socket, SYS_socketpair, SYS_statx, SYS_sysinfo, SYS_uname, SYS_unlinkat, SYS_wait4,
	SYS_waitid,
	444, 445, 446, /* landlock(7): the same on all machines; Debian's headers for some lack them */
	SYS_seccomp, /* which can only forbid more */
#ifdef SYS_open
	SYS_access, SYS_dup2, SYS_link, SYS_lstat, SYS_open, SYS_pipe, SYS_poll, SYS_readlink, SYS_stat, SYS_unlink,
#endif
#ifdef SYS_setrlimit
	SYS_setrlimit,
#endif
#ifdef __GLIBC__
	SYS_rseq, SYS_set_robust_list,
#endif
};
const unsigned syscalls_allowed_count = COUNT(syscalls_allowed);
_Static_assert(COUNT(syscalls_allowed) <= SYSCALLS_MAX, "the filter's room");

/* What goes past the ports of Landlock: TCP Fast Open connects in sending, and MPTCP is a protocol of its own. */
#define FASTOPEN 0x20000000u /* MSG_FASTOPEN */

const struct syscalls_checked syscalls_checked[] = {
	{ SYS_sendto, 3, FASTOPEN, 0, 0, { 0 } },
	{ SYS_sendmsg, 2, FASTOPEN, 0, 0, { 0 } },
	{ SYS_socket, 0, 0, 0, 4, { AF_UNIX, AF_INET, AF_INET6, AF_NETLINK } },
	{ SYS_socket, 1, 0, SOCK_CLOEXEC | SOCK_NONBLOCK, 3, { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET } },
	{ SYS_socket, 2, 0, 0, 2, { 0, 4 /* NETLINK_SOCK_DIAG */ } },
	{ SYS_mmap, 2, PROT_EXEC, 0, 0, { 0 } },
	{ SYS_mprotect, 2, PROT_EXEC, 0, 0, { 0 } },
	{ SYS_prctl, 0, 0, 0, 3, { PR_SET_NAME, PR_GET_NAME, PR_SET_NO_NEW_PRIVS } },
	{ SYS_prlimit64, 0, 0, 0, 1, { 0 /* this process */ } },
	{ SYS_ioctl, 1, 0, 0, 2, { 0x8910 /* SIOCGIFNAME */, 0x8933 /* SIOCGIFINDEX */ } }, /* zones of IPv6 addresses, netdevice(7) */
	{ SYS_clone, 0, 0, 0, 1, { SIGCHLD } },
	{ SYS_socketpair, 0, 0, 0, 1, { AF_UNIX } },
	{ SYS_fcntl, 1, 0, 7, 4, { F_DUPFD /* to F_SETLKW */, F_OFD_GETLK & ~7, F_DUPFD_CLOEXEC & ~7, F_ADD_SEALS & ~7 } }, /* F_SETOWN would signal others */
};
const unsigned syscalls_checked_count = COUNT(syscalls_checked);
_Static_assert(COUNT(syscalls_checked) <= SYSCALLS_CHECKED_MAX, "the filter's room");

const struct syscalls_passed syscalls_passed[] = {
	{ SYS_socket, PASS_NETWORK, { AF_INET, AF_INET6 } },
	{ SYS_connect, PASS_NETWORK, { 0 } },
	{ SYS_clone, PASS_LISTENER, { 0 } },
	{ SYS_kill, PASS_LISTENER, { 0 } },
};
const unsigned syscalls_passed_count = COUNT(syscalls_passed);
_Static_assert(COUNT(syscalls_passed) <= SYSCALLS_PASSED_MAX, "the filter's room");

const char *syscalls_name(int call)
{
	static const struct {
		int call;
		char name[20];
	} names[] = {
		{ SYS_execve, "execve" }, { SYS_execveat, "execveat" }, { SYS_clone, "clone" }, { SYS_ptrace, "ptrace" }, { SYS_socket, "socket" }, { SYS_socketpair, "socketpair" }, { SYS_connect, "connect" },
		{ SYS_mmap, "mmap" }, { SYS_mprotect, "mprotect" }, { SYS_prctl, "prctl" }, { SYS_prlimit64, "prlimit64" },
		{ SYS_process_vm_readv, "process_vm_readv" }, { SYS_process_vm_writev, "process_vm_writev" }, { SYS_setuid, "setuid" }, { SYS_kill, "kill" },
		{ SYS_unshare, "unshare" }, { SYS_setns, "setns" }, { SYS_mount, "mount" }, { SYS_chroot, "chroot" }, { SYS_bpf, "bpf" },
		{ SYS_perf_event_open, "perf_event_open" }, { SYS_userfaultfd, "userfaultfd" }, { SYS_keyctl, "keyctl" }, { SYS_ioctl, "ioctl" }, { SYS_fcntl, "fcntl" },
		{ SYS_sendto, "sendto" }, { SYS_sendmsg, "sendmsg" }, { SYS_tgkill, "tgkill" }, { SYS_tkill, "tkill" }, { SYS_chdir, "chdir" }, { SYS_fchmodat, "fchmodat" },
		{ SYS_renameat2, "renameat2" }, { 435, "clone3" }, { 425, "io_uring_setup" }, { 438, "pidfd_getfd" }, { 424, "pidfd_send_signal" },
#ifdef SYS_fork
		{ SYS_fork, "fork" }, { SYS_vfork, "vfork" }, { SYS_chmod, "chmod" }, { SYS_rename, "rename" },
#endif
	};

	for (unsigned i = 0; i < COUNT(names); i++)
		if (names[i].call == call)
			return names[i].name;
	return "of another name";
}
