# What is compiled and how: read by preload/Makefile (as make) and by preload/hatch_build.py (line by line, so
# each variable stands on one line and refers to no other).
#
# DIRECTORY[+DIRECTORY]:PROGRAM; a program is all of preload/DIRECTORY/*.c and preload/common/*.c.
PROGRAMS := lab:pclab probe:pcprobe wire:pcwire recorder:pcrecorder cownet+cow/resolver:pccow
# Libraries for LD_PRELOAD: all of preload/DIRECTORY/*.c, and what the first directory's generate.py, if it has one, makes of
# its calls.table.
LIBRARIES := cow/library+cow/resolver:libpccow.so wallclock:libpcclock.so
CFLAGS := -std=gnu11 -D_GNU_SOURCE= -O2 -Wall -Wextra -fvisibility=hidden -ffunction-sections -fdata-sections
# In a checkout. A wheel is small, and is perhaps built by a compiler of years to come that warns of more.
CHECKOUT := -g -Werror
LDFLAGS := -pthread -Wl,--gc-sections -Wl,-z,relro,-z,now
# For a build that finds our own errors while the native tests run; such programs are never static. (With sanitizers
# gcc 12 sees overflows where a pointer into a buffer is also the address of its first struct.)
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -Wno-stringop-overflow
# A library that exports what it marks, or the names of its map, alone. Those with a table are built with all of SANITIZE, for
# which tests put AddressSanitizer's own library in front of them; others, which go into containers, without AddressSanitizer.
LIBRARY := -fPIC -shared -Wl,-z,defs
SANITIZE_LIBRARY := -fsanitize=undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -Wno-stringop-overflow
