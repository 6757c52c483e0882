/* Process 1 of an initramfs that has smtpwarp and nothing else: mounts /proc and /dev, loads the modules that lie in /lib/modules, brings the
 * network up, and starts /sbin/smtpwarp. Its arguments are smtpwarp's, and so are its variables: the kernel makes them of its command line.
 *
 * INIT_BECOMES 0: it stays process 1, starts smtpwarp again when that ends, and ends the machine by SIGINT (Ctrl-Alt-Del: boot) or SIGTERM
 * (power off), once smtpwarp's sessions have ended. 1: it becomes smtpwarp, with whose end the kernel panics.
 */
#define _GNU_SOURCE
#include "pure/envfile.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SMTPWARP "/sbin/smtpwarp"
#define SETTINGS "/etc/smtpwarp/smtpwarp.conf"
#define MODULES "/lib/modules"
#define DEVICE_PATIENCE 500 /* hundredths of a second for a network device to appear */
#define RESTART_SECONDS 5

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void say(const char *format, ...)
{
	struct timespec up;
	va_list args;

	clock_gettime(CLOCK_BOOTTIME, &up);
	dprintf(STDERR_FILENO, "init: %ld.%02ld s: ", (long)up.tv_sec, up.tv_nsec / 10000000);
	va_start(args, format);
	vdprintf(STDERR_FILENO, format, args);
	va_end(args);
	dprintf(STDERR_FILENO, "\n");
}

static void say_failed(const char *what)
{
	say("%s: %s", what, strerror(errno));
}

/* ---- files and modules ---- */

static void mount_at(const char *path, const char *type)
{
	mkdir(path, 0755);
	if (mount(type, path, type, MS_NOSUID | MS_NOEXEC, NULL) < 0 && errno != EBUSY)
		say_failed(path);
}

/* Of the files of a folder that end so. */
static int is_module(const struct dirent *entry)
{
	size_t n = strlen(entry->d_name);

	return n > 3 && strcmp(entry->d_name + n - 3, ".ko") == 0;
}

/* In the order of their names: initramfs/pack numbers them. */
static void load_modules(void)
{
	struct dirent **list;
	int n = scandir(MODULES, &list, is_module, alphasort);

	for (int i = 0; i < n; i++) {
		char path[sizeof MODULES + 256];
		int fd;

		snprintf(path, sizeof path, MODULES "/%s", list[i]->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
			say_failed(path);
		if (fd >= 0)
			close(fd);
	}
}

/* ---- network ---- */

/* ip=CLIENT:SERVER:GATEWAY:NETMASK:HOSTNAME:DEVICE:AUTOCONF:DNS:DNS as the kernel has it, Documentation/admin-guide/nfs/nfsroot.rst. Where
 * the kernel has CONFIG_IP_PNP it does that itself, and there is no such variable. */
enum field { CLIENT, SERVER, GATEWAY, NETMASK, HOSTNAME, DEVICE, AUTOCONF, DNS1, DNS2, FIELDS };

static void split(char *text, char *field[FIELDS])
{
	static char nothing[1];

	for (int i = 0; i < FIELDS; i++) {
		char *got = text ? strsep(&text, ":") : NULL;

		field[i] = got ? got : nothing;
	}
}

static bool set_address(struct sockaddr *to, const char *text)
{
	struct sockaddr_in a = { .sin_family = AF_INET };

	if (inet_pton(AF_INET, text, &a.sin_addr) != 1) {
		say("ip=: %s is no IPv4 address", text);
		return false;
	}
	memcpy(to, &a, sizeof a);
	return true;
}

static struct ifreq *about(const char *device, struct ifreq *r)
{
	snprintf(r->ifr_name, sizeof r->ifr_name, "%s", device);
	return r;
}

static bool bring_up(int control, const char *device)
{
	struct ifreq r;

	if (ioctl(control, SIOCGIFFLAGS, about(device, &r)) < 0)
		return false;
	r.ifr_flags |= IFF_UP;
	return ioctl(control, SIOCSIFFLAGS, about(device, &r)) == 0;
}

/* A driver may take a moment to find it. */
static bool wait_for(int control, const char *device)
{
	struct ifreq r;

	for (unsigned i = 0; i < DEVICE_PATIENCE; i++) {
		if (ioctl(control, SIOCGIFFLAGS, about(device, &r)) == 0)
			return true;
		nanosleep(&(struct timespec){ 0, 10000000 }, NULL);
	}
	return false;
}

static void add_route(int control, const char *gateway)
{
	struct rtentry route = { .rt_flags = RTF_UP | RTF_GATEWAY };

	if (set_address(&route.rt_dst, "0.0.0.0") && set_address(&route.rt_genmask, "0.0.0.0") &&
	    set_address(&route.rt_gateway, gateway) && ioctl(control, SIOCADDRT, &route) < 0)
		say_failed("ip=: the gateway");
}

static void add_device(int control, char *field[FIELDS])
{
	const char *device = *field[DEVICE] ? field[DEVICE] : "eth0";
	struct ifreq r;

	if (!wait_for(control, device)) {
		say("there is no network device %s: the driver's module may be missing", device);
		return;
	}
	if (set_address(&r.ifr_addr, field[CLIENT]) && ioctl(control, SIOCSIFADDR, about(device, &r)) < 0)
		say_failed("ip=: the address");
	if (*field[NETMASK] && set_address(&r.ifr_netmask, field[NETMASK]) && ioctl(control, SIOCSIFNETMASK, about(device, &r)) < 0)
		say_failed("ip=: the netmask");
	if (!bring_up(control, device))
		say_failed(device);
	if (*field[GATEWAY])
		add_route(control, field[GATEWAY]);
}

static void name_servers(char *field[FIELDS])
{
	int fd = open("/etc/resolv.conf", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	for (enum field i = DNS1; i <= DNS2; i++)
		if (*field[i])
			dprintf(fd, "nameserver %s\n", field[i]);
	close(fd);
}

static void start_network(void)
{
	int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	const char *given = getenv("ip");
	char *field[FIELDS], text[512];

	if (!bring_up(control, "lo"))
		say_failed("lo");
	if (!given)
		return;
	snprintf(text, sizeof text, "%s", given);
	split(text, field);
	unsetenv("ip");
	if (*field[HOSTNAME] && sethostname(field[HOSTNAME], strlen(field[HOSTNAME])) < 0)
		say_failed("ip=: the host's name");
	if (*field[DNS1])
		name_servers(field);
	if (*field[CLIENT])
		add_device(control, field);
	close(control);
}

/* ---- smtpwarp ---- */

/* The variables of SETTINGS, but for those that the kernel's command line has. */
static void read_settings(void)
{
	enum { OCTETS = 64 << 10, VARIABLES = 1000 };
	static char text[OCTETS + 1], *variables[VARIABLES + 1];
	struct envfile f = { .variables = variables, .most = VARIABLES };
	int fd = open(SETTINGS, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, OCTETS);

	if (fd >= 0)
		close(fd);
	if (n < 0 || !envfile_read(&f, text, (size_t)n))
		say(SETTINGS ": line %u: %s", f.line, n < 0 ? strerror(errno) : f.why);
	for (char **v = variables; *v; v++) {
		char name[256];

		snprintf(name, sizeof name, "%.*s", (int)strcspn(*v, "="), *v);
		if (!getenv(name))
			putenv(*v);
	}
}

static _Noreturn void become(char **argv)
{
	static char name[] = "smtpwarp";

	argv[0] = name;
	execv(SMTPWARP, argv);
	say_failed(SMTPWARP);
	_exit(1);
}

#if !INIT_BECOMES

static int ending; /* the signal that ends the machine; 0: none yet */

/* Wait until this child has ended, and meanwhile pass signals on and bury orphans. */
static int attend(pid_t child, const sigset_t *ours)
{
	pid_t ended;
	int how, childs = 0;
	bool over = false;

	while (!over) {
		int number = sigwaitinfo(ours, NULL);

		if (number == SIGHUP)
			kill(child, SIGHUP);
		if (number == SIGINT || number == SIGTERM) {
			ending = number;
			kill(child, SIGTERM);
		}
		while ((ended = waitpid(-1, &how, WNOHANG)) > 0) /* all of them: one signal may stand for several */
			if (ended == child) {
				childs = how;
				over = true;
			}
	}
	return childs;
}

static pid_t start(char **argv)
{
	sigset_t none;
	pid_t child = fork();

	if (child < 0)
		say_failed("fork");
	if (child)
		return child;
	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	become(argv);
}

static _Noreturn void end_machine(void)
{
	say(ending == SIGINT ? "boot" : "power off");
	sync();
	reboot(ending == SIGINT ? RB_AUTOBOOT : RB_POWER_OFF);
	say_failed("reboot");
	_exit(1);
}

static _Noreturn void supervise(char **argv)
{
	sigset_t ours, ends;

	sigemptyset(&ends);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGTERM);
	ours = ends;
	sigaddset(&ours, SIGCHLD);
	sigaddset(&ours, SIGHUP);
	sigprocmask(SIG_BLOCK, &ours, NULL);
	while (!ending) {
		pid_t child = start(argv);
		int how = child < 0 ? 0 : attend(child, &ours);

		if (ending)
			break;
		say("smtpwarp has ended, %s %d, and starts again in %d seconds", WIFSIGNALED(how) ? "signal" : "exit status",
		    WIFSIGNALED(how) ? WTERMSIG(how) : WEXITSTATUS(how), RESTART_SECONDS);
		ending = sigtimedwait(&ends, NULL, &(struct timespec){ RESTART_SECONDS, 0 });
		ending = ending < 0 ? 0 : ending;
	}
	end_machine();
}

#endif

int main(int argc, char **argv)
{
	(void)argc;
	if (getpid() != 1) {
		say("it is for process 1 of an initramfs");
		return 1;
	}
	umask(022);
	mkdir("/etc", 0755);
	mkdir("/tmp", 01777);
	mount_at("/proc", "proc");
	mount_at("/dev", "devtmpfs");
	load_modules();
	start_network();
	read_settings();
	reboot(RB_DISABLE_CAD); /* Ctrl-Alt-Del is SIGINT to process 1 */
	say("smtpwarp starts");
#if INIT_BECOMES
	become(argv);
#else
	supervise(argv);
#endif
}
