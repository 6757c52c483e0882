# smtpwarp. `make` builds ./smtpwarp, static with musl where musl-gcc is there; CC=gcc builds it against the system's
# libc, for debuggers and sanitizers. BearSSL's headers and libbearssl.a must be installed.

CC = $(shell command -v musl-gcc || echo cc)
CFLAGS = -Os
O = build/$(notdir $(firstword $(CC)))
OUT = smtpwarp
PREFIX = /usr
DESTDIR =
VERSION = $(shell cat VERSION)
PYTHON = /usr/bin/python3

# session.c first, record.c last: what every session touches, then what few do.
SOURCES = session.c smtpwarp.c options.c upstream.c relay.c dialogue.c smtp.c leg.c trust.c base64.c net.c json.c log.c \
	tls.c record.c
HEADERS = options.h session.h dialogue.h smtp.h leg.h tls.h trust.h base64.h net.h record.h json.h log.h
OBJECTS = $(SOURCES:%.c=$(O)/%.o)

WARNINGS = -Wall -Wextra -Wshadow -Wconversion -Wvla
HARDEN = -fPIE -fstack-protector-strong -fno-plt -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables
REPRODUCIBLE = -ffile-prefix-map=$(CURDIR)=. -Wl,--build-id=none
# noseparate-code: fewer mappings to copy at a fork, and no padding.
LINK = -Wl,-z,relro,-z,now,-z,noexecstack,-z,noseparate-code,--gc-sections

# BearSSL's headers without the rest of /usr/include, which is another libc's when the compiler is musl-gcc.
BEARSSL_INCLUDE = $(firstword $(wildcard /usr/include/bearssl /usr/local/include/bearssl) /usr/include)
BEARSSL_LIB = $(firstword $(wildcard /usr/lib/$(shell gcc -dumpmachine 2>/dev/null)/libbearssl.a \
	/usr/lib/libbearssl.a /usr/local/lib/libbearssl.a) libbearssl.a-is-missing)

ifneq (,$(findstring musl-gcc,$(CC)))
# musl-gcc's specs know no static-pie: the parts are named here.
MUSL = /usr/lib/$(shell gcc -dumpmachine | sed s/gnu/musl/)
START = -nostartfiles $(MUSL)/rcrt1.o $(MUSL)/crti.o
END = $(MUSL)/crtn.o
LINK += -static -Wl,-pie,--no-dynamic-linker,-z,text
# A libbearssl.a built for glibc with _FORTIFY_SOURCE wants three names of glibc's.
CPPFLAGS = -DSMTPWARP_FORTIFY_SHIMS
else ifneq (,$(shell $(CC) -dumpmachine 2>/dev/null | grep musl))
LINK += -static-pie
else
LINK += -pie
endif

all: $(OUT)

$(OUT): $(O)/smtpwarp
	strip -o $@ $<
	@echo "$@: $$(stat -c %s $@) octets"

# Unwind tables, of which C has no use, are a tenth of the library.
$(O)/libbearssl.a: $(BEARSSL_LIB)
	@mkdir -p $(O)
	objcopy --remove-section=.eh_frame $< $@

$(O)/smtpwarp: $(OBJECTS) $(O)/libbearssl.a
	$(CC) $(CFLAGS) $(HARDEN) $(REPRODUCIBLE) $(LINK) $(LDFLAGS) $(START) -o $@ $(OBJECTS) $(O)/libbearssl.a $(END)

# Message bytes pass through here.
$(O)/smtp.o: CFLAGS += -O2

$(O)/%.o: %.c $(HEADERS) VERSION Makefile
	@mkdir -p $(O)
	$(CC) -std=c11 $(WARNINGS) $(WERROR) $(CFLAGS) $(HARDEN) $(REPRODUCIBLE) $(CPPFLAGS) \
		-DSMTPWARP_VERSION='"$(VERSION)"' -isystem $(BEARSSL_INCLUDE) -c -o $@ $<

asan:
	$(MAKE) CC=gcc O=build/asan build/asan/smtpwarp \
		CFLAGS='-Og -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer'

clean:
	rm -rf build $(OUT)

.PHONY: all asan clean
