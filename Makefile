# smtpwarp. `make` builds ./smtpwarp, static with musl where musl-gcc is there; CC=gcc builds it against the system's
# libc, for debuggers and sanitizers. BearSSL's headers and libbearssl.a must be installed.

# CROSS=aarch64-linux-gnu builds for another machine with Debian's cross compiler, and with musl and BearSSL from Debian's packages
# for that machine, unpacked in SYSROOT.
CROSS =
SYSROOT =
CC = $(if $(CROSS),$(CROSS)-gcc -specs build/cross/$(CROSS)/musl/musl-gcc.specs,$(shell command -v musl-gcc || echo cc))
# clang's link-time optimization would need a linker plugin.
CFLAGS = $(if $(findstring clang,$(CC)),-Os,-Oz) $(if $(findstring clang,$(CC)),,-flto -flto-partition=one)
MACHINE = $(or $(CROSS),$(shell gcc -dumpmachine 2>/dev/null))
TOOL = $(CROSS:%=%-)
OBJCOPY = objcopy
O = $(if $(CROSS),build/cross/$(CROSS),build/$(notdir $(firstword $(CC))))
OUT = $(CROSS:%=build/cross/%/bin/)smtpwarp
STAT_OUT = $(OUT)-stat
PREFIX = /usr
DESTDIR =
VERSION = $(shell cat VERSION)
PYTHON = /usr/bin/python3
PLUGINS = $(PREFIX)/lib/smtpwarp/plugins
RULES = $(PREFIX)/share/smtpwarp/replies.rules
PROVIDERS = $(PREFIX)/share/smtpwarp/providers

# session.c first, record.c last: what every session touches, then what few do.
SOURCES = session/session.c session/clock.c session/gate.c session/serverstate.c session/talk.c session/transaction.c \
	session/held.c smtpwarp.c listener.c upgrade.c loaded.c pure/options.c pure/endpoint.c session/server.c session/hello.c session/steps.c \
	session/commands.c session/replies.c pure/dialogue.c smtp.c pure/sasl.c session/leg.c io/trust.c pure/certificate.c pure/base64.c io/file.c \
	io/net.c io/netlink.c io/user.c pure/address.c pure/json.c io/event.c io/fault.c io/notify.c io/log.c pure/sink.c tls.c pure/levels.c session/clienttls.c session/inspect.c session/policy.c session/tlsreport.c io/keys.c \
	session/filter.c session/maildata.c session/recipient.c session/routing.c pure/route.c session/upstreamauth.c io/passwords.c io/routes.c \
	pure/idna.c pure/tlspolicy.c pure/policylist.c io/policyfile.c pure/socketmap.c io/socketmap.c pure/tlsrpt.c io/tlsrpt.c \
	session/checks.c session/tarpit.c session/kept.c io/memory.c io/readable.c io/sandbox.c io/syscalls.c io/passes.c io/dialer.c session/observe.c session/plainafter.c session/mxname.c io/statefile.c io/providers.c pure/statemap.c \
	pure/detector.c pure/site.c session/trace.c session/tryhook.c pure/envfile.c \
	pure/dnsbl.c session/identity.c pure/proxyproto.c io/dns.c pure/dnsmessage.c pure/dane.c io/dane.c io/lookup.c pure/ere.c hooks.c io/companion.c io/broker.c io/keeper.c io/requests.c io/agent.c \
	pure/verdict.c io/message.c session/refusal.c io/rulefiles.c pure/replyrules.c pure/replyclass.c session/record.c
OBJECTS = $(SOURCES:%.c=$(O)/%.o)
# smtpwarp-stat, a program of its own: what it needs of pure/ and io/, the linker takes.
STAT_SHARED = pure/jsonread.c pure/json.c pure/address.c pure/endpoint.c pure/statemap.c pure/detector.c pure/replyclass.c pure/replyrules.c pure/site.c \
	io/statefile.c io/file.c io/providers.c io/readable.c io/rulefiles.c smtp.c
STAT_OBJECTS = $(patsubst %.c,$(O)/%.o,$(sort $(wildcard stat/*.c)) $(STAT_SHARED))

WARNINGS = -Wall -Wextra -Wshadow -Wconversion -Wvla
HARDEN = -fPIE -fstack-protector-strong -fno-plt -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables
REPRODUCIBLE = -ffile-prefix-map=$(CURDIR)=.
# noseparate-code: fewer mappings to copy at a fork, and no padding.
LINK = -Wl,--build-id=none,-z,relro,-z,now,-z,noexecstack,-z,noseparate-code,--gc-sections

# BearSSL's headers without the rest of /usr/include, which is another libc's when the compiler is musl-gcc.
BEARSSL_INCLUDE = $(firstword $(wildcard $(SYSROOT)/usr/include/bearssl /usr/local/include/bearssl) /usr/include)
BEARSSL_LIB = $(firstword $(wildcard $(SYSROOT)/usr/lib/$(MACHINE)/libbearssl.a \
	$(if $(CROSS),,/usr/lib/libbearssl.a /usr/local/lib/libbearssl.a)) libbearssl.a-is-missing)

ifneq (,$(findstring musl-gcc,$(CC)))
# musl-gcc's specs know no static-pie: the parts are named here.
MUSL = $(if $(CROSS),build/cross/$(CROSS)/musl,/usr/lib/$(MACHINE:gnu=musl))
START = -nostartfiles $(MUSL)/rcrt1.o $(MUSL)/crti.o
END = $(MUSL)/crtn.o
LINK += -static -Wl,-pie,--no-dynamic-linker,-z,text
# A libbearssl.a built for glibc with _FORTIFY_SOURCE wants three names of glibc's.
CPPFLAGS = -DSMTPWARP_FORTIFY_SHIMS
else ifneq (,$(shell $(CC) -dumpmachine 2>/dev/null | grep musl))
LINK += -static-pie
else
LINK += -pie
ifeq ($(origin CC),file)
NOT_STATIC = , not static, for there is no musl-gcc: Debian has it in the package musl-tools
endif
endif

all: $(OUT) $(STAT_OUT)

# What is missing, by the name of Debian's package.
$(BEARSSL_LIB):
	@echo "BearSSL is missing: Debian has its headers and libbearssl.a in the package libbearssl-dev" >&2; exit 1
$(OBJECTS): | $(BEARSSL_LIB)

ifdef CROSS
# A static program relocates itself, and musl's start code does no more than add its address: ld for RISC-V must not leave symbols to it.
LINK += -Wl,--exclude-libs,ALL
# Debian's libraries for RISC-V may be newer than the cross compiler, whose ld and objcopy then fail at attributes and debug sections.
OBJCOPY = llvm-objcopy --strip-debug --remove-section=.riscv.attributes
MUSL_INSTALLED = $(SYSROOT)/usr/lib/$(MACHINE:gnu=musl)
$(MUSL)/musl-gcc.specs: $(MUSL_INSTALLED)/musl-gcc.specs
	@mkdir -p $(MUSL)
	for file in $(notdir $(wildcard $(MUSL_INSTALLED)/*.[ao])); do $(OBJCOPY) $(MUSL_INSTALLED)/$$file $(MUSL)/$$file || exit 1; done
	sed 's,/usr/lib/$(MACHINE:gnu=musl),$(MUSL),g; s,/usr/include,$(SYSROOT)&,g' $< >$@
$(OBJECTS) $(STAT_OBJECTS): | $(MUSL)/musl-gcc.specs
endif

$(OUT): $(O)/smtpwarp
	@mkdir -p $(@D)
	$(TOOL)strip -o $@ $<
	@echo "$@: $$(stat -c %s $@) octets$(NOT_STATIC)"

$(STAT_OUT): $(O)/smtpwarp-stat
	@mkdir -p $(@D)
	$(TOOL)strip -o $@ $<

# Unwind tables, of which C has no use, are a tenth of the library.
$(O)/libbearssl.a: $(BEARSSL_LIB)
	@mkdir -p $(O)
	$(OBJCOPY) --remove-section=.eh_frame $< $@

$(O)/smtpwarp: $(OBJECTS) $(BESIDE) $(O)/libbearssl.a
	$(CC) $(CFLAGS) $(HARDEN) $(REPRODUCIBLE) $(LINK) $(LDFLAGS) $(START) -o $@ $(OBJECTS) $(BESIDE) $(O)/libbearssl.a $(END)

$(O)/smtpwarp-stat: $(STAT_OBJECTS)
	$(CC) $(CFLAGS) $(HARDEN) $(REPRODUCIBLE) $(LINK) $(LDFLAGS) $(START) -o $@ $(STAT_OBJECTS) $(END)

# The paths of an installation that the program knows.
$(O)/paths: FORCE
	@mkdir -p $(O)
	@echo $(PLUGINS) $(RULES) $(PROVIDERS) | cmp -s - $@ || echo $(PLUGINS) $(RULES) $(PROVIDERS) >$@
FORCE:
$(O)/pure/options.o $(O)/io/rulefiles.o $(O)/loaded.o: $(O)/paths

$(O)/%.o: %.c VERSION Makefile
	@mkdir -p $(@D)
	$(CC) -std=c11 -I. -MMD -MP $(WARNINGS) $(WERROR) $(CFLAGS) $(HARDEN) $(REPRODUCIBLE) $(CPPFLAGS) \
		-DSMTPWARP_VERSION='"$(VERSION)"' -DOPTIONS_PLUGINS='"$(PLUGINS)"' \
		-DRULEFILES_SHIPPED='"$(RULES)"' -DOPTIONS_PROVIDERS='"$(PROVIDERS)"' -isystem $(BEARSSL_INCLUDE) -c -o $@ $<
-include $(OBJECTS:.o=.d) $(STAT_OBJECTS:.o=.d)

# ---- hooks ----

# Scripts are hooks as they are. Those in C are built with the system's compiler and libraries, which their heads name;
# one whose libraries are not here is left out.
HOOK_CC = cc
HOOKS_C = $(basename $(notdir $(wildcard hooks/*.c)))
HOOKS_SH = $(filter-out sample README.md %.c,$(notdir $(wildcard hooks/*)))
hook_head = $(shell sed -n 's/^[ *\#]* $(2): //p' hooks/$(1) | head -n 1)
hook_links = $(call hook_head,$(1).c,Links)
HOOKS_BUILT = $(foreach hook,$(HOOKS_C),$(if $(shell pkg-config --exists $(call hook_links,$(hook)) 2>/dev/null && echo yes),$(hook)))

hooks: $(HOOKS_BUILT:%=build/hooks/%)
	@for hook in $(filter-out $(HOOKS_BUILT),$(HOOKS_C)); do \
		echo "hooks/$$hook.c is left out: $$(sed -n 's/^ \* Links: /it needs the development files of /p' hooks/$$hook.c)"; done

build/hooks/%: hooks/%.c Makefile
	@mkdir -p build/hooks
	$(HOOK_CC) -std=c11 $(WARNINGS) $(WERROR) -O2 -fstack-protector-strong $(HOOK_CFLAGS) \
		$(shell pkg-config --cflags $(call hook_links,$*)) -o $@ $< $(shell pkg-config --libs $(call hook_links,$*))

# Other machines, with what test/packages/fetch unpacks for them.
MACHINES = aarch64-linux-gnu riscv64-linux-gnu
cross:
	@test/packages/install test/packages/cross
	@test/packages/fetch
	@for machine in $(MACHINES); do $(MAKE) --no-print-directory CROSS=$$machine SYSROOT=build/pkg/trixie || exit 1; done

asan:
	@$(MAKE) --no-print-directory CC=gcc O=build/asan build/asan/smtpwarp build/asan/smtpwarp-stat \
		CFLAGS='-Og -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer'

# ---- initramfs ----

# Two archives for a kernel: in child.cpio.gz init stays and looks after smtpwarp, in init.cpio.gz it becomes smtpwarp. KERNEL, MODULES and
# FILES: see initramfs/pack.
CA = $(wildcard /etc/ssl/certs/ca-certificates.crt)
I = build/initramfs
initramfs: $(I)/child.cpio.gz $(I)/init.cpio.gz

$(I)/child $(I)/init: initramfs/init.c pure/envfile.c pure/envfile.h Makefile
	@mkdir -p $(I)
	$(CC) -std=c11 -I. $(WARNINGS) $(WERROR) -Os -static -s -fstack-protector-strong $(REPRODUCIBLE) -DINIT_BECOMES=$(if $(filter init,$(@F)),1,0) -o $@ \
		initramfs/init.c pure/envfile.c

$(I)/%.cpio.gz: $(I)/% $(OUT) initramfs/pack FORCE
	SMTPWARP=$(OUT) CA='$(CA)' FILES='$(FILES)' KERNEL='$(KERNEL)' MODULES='$(MODULES)' initramfs/pack $< $@
	@echo "$@: $$(stat -c %s $@) octets"

# ---- tests ----

packages:
	@test/packages/install test/packages/demo test/packages/test test/packages/cross
	@test/packages/fetch

ifdef CROSS
# No libcmocka and no sanitizers there.
T = $(O)/test
TEST_CC = $(CC) -static
TEST_FLAGS = -std=c11 -I. -Itest/lib/cross -MMD -MP $(WARNINGS) -g -O1 -D__rlimit_resource_t=int
CMOCKA = test/lib/cross/cmocka.c
TEST_BEARSSL = $(O)/libbearssl.a -Wl,--defsym=__memcpy_chk=memcpy -Wl,--defsym=__memset_chk=memset
else
T = build/test
TEST_CC = gcc
TEST_FLAGS = -std=c11 -I. -MMD -MP $(WARNINGS) -Werror -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all
CMOCKA = -lcmocka
TEST_BEARSSL = $(BEARSSL_LIB)
endif
# What each of them is built with, and no more: so it shows what is pure.
UNIT_smtp = smtp.c
UNIT_sasl = pure/sasl.c pure/base64.c $(UNIT_smtp)
UNIT_replyclass = pure/replyclass.c
UNIT_replyrules = pure/replyrules.c $(UNIT_replyclass)
UNIT_dialogue = pure/dialogue.c $(UNIT_sasl)
UNIT_verdict = pure/verdict.c pure/json.c pure/base64.c $(UNIT_smtp)
UNIT_message = io/message.c $(UNIT_file) $(UNIT_verdict)
UNIT_routes = io/routes.c $(UNIT_file) $(UNIT_idna)
UNIT_proxyproto = pure/proxyproto.c $(UNIT_address)
UNIT_tlsrpt = pure/tlsrpt.c io/tlsrpt.c pure/jsonread.c pure/json.c $(UNIT_dnsmessage)
UNIT_tlspolicy = pure/tlspolicy.c $(UNIT_dnsmessage)
UNIT_policylist = pure/policylist.c $(UNIT_idna) $(UNIT_tlspolicy)
UNIT_policyfile = io/policyfile.c $(UNIT_file) $(UNIT_policylist)
UNIT_socketmap = $(UNIT_passes) pure/socketmap.c io/socketmap.c $(UNIT_endpoint)
UNIT_ere = pure/ere.c
UNIT_address = pure/address.c
UNIT_endpoint = pure/endpoint.c $(UNIT_address)
UNIT_envfile = pure/envfile.c
UNIT_detector = pure/detector.c $(UNIT_replyclass)
UNIT_statemap = pure/statemap.c $(UNIT_detector)
UNIT_statefile = io/statefile.c $(UNIT_file) $(UNIT_statemap)
UNIT_site = pure/site.c $(UNIT_address)
UNIT_idna = pure/idna.c pure/json.c $(UNIT_smtp)
UNIT_words = pure/levels.c pure/sink.c
UNIT_route = pure/route.c pure/levels.c $(UNIT_endpoint) $(UNIT_smtp)
UNIT_base64 = pure/base64.c
UNIT_jsonread = pure/jsonread.c pure/json.c
UNIT_certificate = pure/certificate.c
UNIT_dane = pure/dane.c $(UNIT_certificate) $(UNIT_dnsmessage)
UNIT_tlsa = $(UNIT_passes) io/dane.c io/dns.c $(UNIT_file) $(UNIT_dane)
UNIT_dnsmessage = pure/dnsmessage.c $(UNIT_address)
UNIT_dns = $(UNIT_passes) io/dns.c $(UNIT_file) $(UNIT_dnsmessage)
UNIT_dnsbl = pure/dnsbl.c $(UNIT_dnsmessage)
UNIT_file = io/file.c io/readable.c
UNIT_readable = $(UNIT_file)
UNIT_broker = $(UNIT_passes) io/broker.c io/companion.c io/requests.c
UNIT_passes = io/passes.c
UNIT_dialer = io/companion.c io/requests.c $(UNIT_passes)
UNIT_upgrade = $(UNIT_passes)
UNIT_keeper = io/keeper.c $(UNIT_broker)
UNIT_options = pure/options.c pure/socketmap.c pure/endpoint.c pure/sink.c $(UNIT_dnsbl) $(UNIT_ere) $(UNIT_smtp)
UNIT_lookup = $(UNIT_passes) io/lookup.c io/net.c io/netlink.c io/dns.c $(UNIT_file) $(UNIT_dnsmessage)
UNIT_net = $(UNIT_passes) io/net.c io/netlink.c pure/address.c
UNIT_user = io/user.c
UNIT_keys = io/keys.c $(UNIT_file) pure/base64.c pure/certificate.c
UNIT_passwords = io/passwords.c $(UNIT_file)
UNIT_agent = $(UNIT_passes) io/companion.c io/requests.c io/passwords.c $(UNIT_keys)
UNIT_tls = $(sort io/trust.c io/agent.c pure/levels.c $(UNIT_dane) $(UNIT_agent))
# A session whole, on fakes: objects, for its tests share them. session.c is part of test/lib/fake_session.c.
UNIT_SESSION = $(patsubst %.c,$(T)/%.o,test/lib/fake_session.c test/lib/fake_world.c io/event.c io/file.c io/readable.c io/sandbox.c io/syscalls.c io/passes.c io/dialer.c io/companion.c io/requests.c io/message.c io/passwords.c \
	io/routes.c io/rulefiles.c io/statefile.c io/providers.c smtp.c $(wildcard pure/*.c) $(filter-out session/session.c session/clock.c,$(wildcard session/*.c)))
$(foreach part,hello server steps transaction commands replies maildata recipient filter checks identity observe plainafter mxname policy tlsreport,$(eval UNIT_$(part) = $$(UNIT_SESSION)))
FAKED = ppoll recv send shutdown close statefile_now
FUZZ_client = $(UNIT_dialogue)
FUZZ_server = $(UNIT_dialogue)
FUZZ_verdict = $(UNIT_message)
FUZZ_routes = $(UNIT_routes)
FUZZ_proxyproto = $(UNIT_proxyproto)
FUZZ_dns = $(UNIT_dnsmessage)
FUZZ_replyrules = $(UNIT_replyrules)
FUZZ_tlspolicy = $(UNIT_tlspolicy)
FUZZ_policylist = $(UNIT_policylist)
FUZZ_socketmap = pure/socketmap.c $(UNIT_endpoint)
FUZZ_certificate = $(UNIT_certificate)
FUZZ_TARGETS = $(patsubst test/fuzz/%.c,%,$(wildcard test/fuzz/*.c))

# Each file once, for all programs that link it.
objects = $(patsubst %.c,$(T)/%.o,$(1))
.SECONDEXPANSION:
$(T)/unit_%: test/unit/%.c $$(call objects,$$(UNIT_$$*)) Makefile
	@mkdir -p $(T)
	$(TEST_CC) $(TEST_FLAGS) -isystem $(BEARSSL_INCLUDE) -o $@ $< $(call objects,$(UNIT_$*)) $(CMOCKA) \
		$(if $(filter keys agent tls,$*),$(TEST_BEARSSL)) $(if $(filter detector,$*),-lm) \
		$(if $(filter %/fake_session.o,$(UNIT_$*)),$(FAKED:%=-Wl,--wrap=%))

$(T)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(TEST_CC) $(TEST_FLAGS) -DOPTIONS_PLUGINS='"/plugins"' -DSMTPWARP_VERSION='"0"' -include test/lib/legal_note.h \
		-isystem $(BEARSSL_INCLUDE) -c -o $@ $<

$(T)/replay_%: test/fuzz/%.c $$(call objects,$$(FUZZ_$$*)) Makefile
	@mkdir -p $(T)
	$(TEST_CC) $(TEST_FLAGS) -DREPLAY -o $@ $< $(call objects,$(FUZZ_$*))

$(T)/fuzz_%: test/fuzz/%.c $$(FUZZ_$$*) Makefile
	@mkdir -p $(T)
	clang $(TEST_FLAGS) -fsanitize=fuzzer,address,undefined -o $@ $< $(FUZZ_$*)

LIB_ask_map = $(sort $(UNIT_socketmap) $(UNIT_tlspolicy)) pure/json.c
LIB_send_report = $(UNIT_tlsrpt)
LIB_classify = $(UNIT_replyrules) smtp.c
LIB_ask_dane = $(UNIT_tlsa)
LIB_PROGRAMS = ask_map send_report classify ask_dane
$(LIB_PROGRAMS:%=$(T)/%): $(T)/%: test/lib/%.c $$(call objects,$$(LIB_$$*)) Makefile
	@mkdir -p $(T)
	$(TEST_CC) $(TEST_FLAGS) -o $@ $< $(call objects,$(LIB_$*))

# smtpwarp with an intruder in its sessions, see test/proof/intruder.c. Without link-time optimization functions can be wrapped.
intruder:
	@mkdir -p build/test/intruder
	$(MAKE) --no-print-directory CFLAGS='-Os -Wno-format-truncation' O=build/test/intruder OUT=build/test/intruder/bin/smtpwarp \
		LDFLAGS=-Wl,--wrap=commands_turn BESIDE=build/test/intruder/test/proof/intruder.o build/test/intruder/bin/smtpwarp

# The session fuzzer, whose head says what it does: no sanitizer in it, for it is to be quick.
SESSION_FUZZER = $(wildcard test/fuzz/session/*.c)
$(T)/session_fuzzer: $(SESSION_FUZZER) test/fuzz/session/fuzz.h Makefile
	@mkdir -p $(T)
	gcc -std=c11 $(WARNINGS) -Werror -g -O2 -o $@ $(SESSION_FUZZER) -lssl -lcrypto
-include $(wildcard $(T)/*.d $(T)/*/*.d $(T)/*/*/*.d)

# All that `make test` runs beside smtpwarp itself.
UNITS_TESTED = $(patsubst test/unit/%.c,%,$(wildcard test/unit/*.c))
programs: $(UNITS_TESTED:%=$(T)/unit_%) $(FUZZ_TARGETS:%=$(T)/replay_%) $(LIB_PROGRAMS:%=$(T)/%) $(T)/session_fuzzer

# Ends with one line for all of it: N passed, N failed, N skipped.
test: packages
	@$(MAKE) --no-print-directory -j$$(nproc) all hooks asan
	@$(PYTHON) -B test/run.py

demo:
	@test/packages/install test/packages/demo
	@$(MAKE) --no-print-directory all
	@$(PYTHON) -B test/demo.py

bench:
	@test/packages/install test/packages/bench test/packages/demo
	@$(MAKE) --no-print-directory all
	@$(PYTHON) -B test/bench.py

# New inputs are kept when they reach something new; FUZZ_SECONDS for each target, and for sessions, each time others.
FUZZ_SECONDS = 300
fuzz: $(FUZZ_TARGETS:%=$(T)/fuzz_%) $(T)/session_fuzzer asan
	$(T)/session_fuzzer --jobs $$(nproc) --seconds $(FUZZ_SECONDS) --from $$(date +%s)000 build/asan/smtpwarp
	$(PYTHON) -B test/fuzz/dlp.py --seconds $(FUZZ_SECONDS) --from $$(date +%s)000
	$(PYTHON) -B test/fuzz/attackers.py --seconds $(FUZZ_SECONDS) --from $$(date +%s)000 build/asan/smtpwarp
	for target in $(FUZZ_TARGETS); do \
		mkdir -p $(T)/work_$$target && \
		$(T)/fuzz_$$target -max_total_time=$(FUZZ_SECONDS) -max_len=2500 $(T)/work_$$target test/fuzz/corpus/$$target && \
		$(T)/fuzz_$$target -merge=1 -use_counters=0 -max_len=1200 test/fuzz/corpus/$$target $(T)/work_$$target || exit 1; \
	done

# ---- installation ----

UNITS = smtpwarp.socket smtpwarp@.service smtpwarp-listener.socket smtpwarp.service smtpwarp-metrics.socket smtpwarp-metrics@.service
SHARE = $(filter-out $(UNITS) smtpwarp.sysusers smtpwarp.tmpfiles smtpwarp.logrotate smtpwarp-setup,$(notdir $(wildcard units/*)))

# What is installed is put together here, then copied.
STAGE = $(O)/stage
STAGED = $(STAGE)$(PREFIX)
# A hook stands in lib/smtpwarp/hooks, for symbolic links; in lib/smtpwarp/plugins/EVENT, for --plugins, links stand already.
HOOK_DIR = $(STAGED)/lib/smtpwarp/hooks

stage: all hooks
	rm -rf $(STAGE)
	install -D -m 755 $(OUT) $(STAGED)/sbin/smtpwarp
	install -D -m 755 $(STAT_OUT) $(STAGED)/bin/smtpwarp-stat
	install -m 755 units/smtpwarp-setup $(STAGED)/sbin
	for page in man/*.[578]; do \
		install -D -m 644 $$page $(STAGED)/share/man/man$${page##*.}/$${page##*/} || exit 1; done
	install -d $(HOOK_DIR) $(STAGED)/share/smtpwarp/hooks/sample
	install -m 755 $(HOOKS_SH:%=hooks/%) $(HOOKS_BUILT:%=build/hooks/%) $(HOOK_DIR)
	install -m 644 $(filter-out rules/kumo2rules,$(wildcard rules/*)) $(STAGED)/share/smtpwarp
	install -m 755 rules/kumo2rules $(STAGED)/share/smtpwarp
	install -m 644 hooks/sample/* $(STAGED)/share/smtpwarp/hooks/sample
	for hook in $(HOOKS_SH) $(HOOKS_BUILT:%=%.c); do \
		for event in $$(sed -n 's/^[ *#]* Events: //p' hooks/$$hook | head -n 1); do \
			install -d $(STAGE)$(PLUGINS)/$$event && \
			ln -sf ../../hooks/$${hook%.c} $(STAGE)$(PLUGINS)/$$event/$${hook%.c} || exit 1; \
		done; \
	done
	install -d $(STAGED)/lib/systemd/system
	install -m 644 $(UNITS:%=units/%) $(STAGED)/lib/systemd/system
	install -D -m 644 units/smtpwarp.sysusers $(STAGED)/lib/sysusers.d/smtpwarp.conf
	install -D -m 644 units/smtpwarp.tmpfiles $(STAGED)/lib/tmpfiles.d/smtpwarp.conf
	install -D -m 644 units/smtpwarp.conf $(STAGE)/etc/smtpwarp/smtpwarp.conf
	install -D -m 644 units/smtpwarp.logrotate $(STAGE)/etc/logrotate.d/smtpwarp
	cp -p $(SHARE:%=units/%) $(STAGED)/share/smtpwarp
	install -m 644 MIGRATING.md $(STAGED)/share/smtpwarp
	sed -i 's,/usr/\(s*bin/smtpwarp\),$(PREFIX)/\1,g; s,/usr/share/smtpwarp,$(PREFIX)/share/smtpwarp,g' \
		$(UNITS:%=$(STAGED)/lib/systemd/system/%) $(SHARE:%=$(STAGED)/share/smtpwarp/%) $(STAGED)/sbin/smtpwarp-setup

# What install has put there, for uninstall: files, and directories (NAME/) that were missing.
INSTALLED = $(DESTDIR)$(PREFIX)/share/smtpwarp/installed

# A file that is there is replaced at once, so that what runs it goes on. Files in /etc belong to the operator: one that is there stays
# as it is, and uninstall leaves them all.
install: stage
	@umask 022; (cat $(INSTALLED) 2>/dev/null; cd $(STAGE) && find . ! -name . | sed 's/^\.//' | LC_ALL=C sort | while read -r path; do \
		target=$(abspath $(DESTDIR))$$path; \
		case $$path in /etc/*) record=:;; *) record=echo;; esac; \
		if [ -d .$$path ]; then \
			[ -d $$target ] || { mkdir -p $$target && $$record $$path/; } || exit 1; \
		elif [ $$record = echo ] || ! [ -e $$target ]; then \
			cp -P .$$path $$target.new && mv -f $$target.new $$target && $$record $$path || exit 1; \
		fi; \
	done && echo $(PREFIX)/share/smtpwarp/installed) >$(O)/installed
	@LC_ALL=C sort -u $(O)/installed >$(INSTALLED)
	@echo "installed below $(DESTDIR)$(PREFIX); options are in $(DESTDIR)/etc/smtpwarp/smtpwarp.conf; to start: smtpwarp-setup on"

# While the redirect is in (smtpwarp-setup status says 0 or 2), mail would find nobody.
uninstall:
	@[ -f $(INSTALLED) ] || { echo "nothing is installed here: there is no $(INSTALLED)" >&2; exit 1; }
	@[ "$(DESTDIR)" ] || { $(PREFIX)/sbin/smtpwarp-setup status >/dev/null 2>&1; case $$? in 0 | 2) false;; esac; } || \
		{ echo "first take the redirect out, smtpwarp-setup off; nothing was changed" >&2; exit 1; }
	@LC_ALL=C sort -r $(INSTALLED) | while read -r path; do case $$path in \
		*/) rmdir $(DESTDIR)$$path 2>/dev/null || :;; \
		*) rm -f $(DESTDIR)$$path || exit 1;; \
	esac; done
	@echo "left for you: $(DESTDIR)/etc/smtpwarp, $(DESTDIR)/etc/logrotate.d/smtpwarp, logs, state, and the user smtpwarp"

# ---- images ----

# OCI images. Two builds of one commit by the same tools are the same octets.
IMAGES = $(if $(CROSS),$(O)/images,build/images)
IMAGE_SOURCE =
CA_BUNDLE = /etc/ssl/certs/ca-certificates.crt
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || stat -c %Y VERSION)
export SOURCE_DATE_EPOCH
IMAGE_PLATFORM = $(if $(CROSS),--platform linux/$(subst aarch64,arm64,$(firstword $(subst -, ,$(CROSS)))))
IMAGE_LABELS = $(IMAGE_PLATFORM) --build-arg VERSION=$(VERSION) --build-arg REVISION=$(shell git rev-parse HEAD 2>/dev/null) --build-arg SOURCE=$(IMAGE_SOURCE)

image: ROOT = $(IMAGES)/smtpwarp/rootfs
image: all
	rm -rf $(ROOT)
	install -D -m 755 $(OUT) $(ROOT)/usr/sbin/smtpwarp
	install -D -m 755 $(STAT_OUT) $(ROOT)/usr/bin/smtpwarp-stat
	install -D -m 644 -t $(ROOT)/usr/share/smtpwarp rules/replies.rules rules/providers
	install -D -m 644 $(CA_BUNDLE) $(ROOT)/etc/ssl/certs/ca-certificates.crt
	install -d -m 1777 $(ROOT)/run/smtpwarp
	@containers/build containers/Containerfile $(IMAGES)/smtpwarp $(IMAGES)/smtpwarp.tar smtpwarp:$(VERSION) $(IMAGE_LABELS)

# What the heads of the hooks say that they need, and certificates for curl.
HOOK_PACKAGES = ca-certificates $(shell sed -n 's/^[ *\#]* Needs: //p' $(HOOKS_SH:%=hooks/%) $(HOOKS_C:%=hooks/%.c) | sed 's/(.*)//; s/,/ /g')

image-hooks: ROOT = $(IMAGES)/smtpwarp-hooks/rootfs
image-hooks: stage $(IMAGES)/smtpwarp-hooks/debian.tar
	rm -rf $(ROOT)
	install -d $(ROOT)
	cp -a $(STAGE)/usr $(ROOT)
	rm -rf $(ROOT)/usr/share/man $(addprefix $(ROOT)/usr/lib/,systemd sysusers.d tmpfiles.d) $(ROOT)/usr/sbin/smtpwarp-setup
	install -d $(ROOT)/etc/smtpwarp/hooks
	install -d -m 1777 $(ROOT)/run/smtpwarp
	@containers/build containers/Containerfile.hooks $(IMAGES)/smtpwarp-hooks $(IMAGES)/smtpwarp-hooks.tar smtpwarp-hooks:$(VERSION) \
		$(IMAGE_LABELS)

$(IMAGES)/smtpwarp-hooks/packages: FORCE
	@mkdir -p $(@D)
	@echo $(HOOK_PACKAGES) | cmp -s - $@ || echo $(HOOK_PACKAGES) >$@
$(IMAGES)/smtpwarp-hooks/debian.tar: $(IMAGES)/smtpwarp-hooks/packages containers/debian
	containers/debian $@ $(HOOK_PACKAGES)

clean:
	rm -rf build $(OUT) $(STAT_OUT)

.SILENT: stage
.PHONY: FORCE all hooks cross asan intruder initramfs packages programs test demo bench fuzz stage install uninstall image image-hooks clean
.SECONDARY:
