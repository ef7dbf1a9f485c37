# Compiles what the Kbuild files name for the options in .config, and links it.
include .config

folders := archival archival/libarchive coreutils coreutils/libcoreutils debianutils editors findutils libbb miscutils \
	libpwdgrp procps shell

CPPFLAGS := -Iinclude -Ilibbb -include include/autoconf.h -D_GNU_SOURCE -DNDEBUG -D_FILE_OFFSET_BITS=64 \
	-DBB_VER='"1.35.0"' -DBB_EXTRA_VERSION='""'

objects := applets/applets.o
$(foreach folder,$(folders),\
	$(eval lib-y :=)\
	$(eval include $(folder)/Kbuild)\
	$(eval objects += $(addprefix $(folder)/,$(lib-y))))
objects := $(sort $(objects))

busybox: $(objects)
	rm -f lib.a
	ar rc lib.a $(objects)
	cc -static -s -o $@ applets/applets.o lib.a

%.o: %.c
	cc -O2 -w $(CPPFLAGS) -c -o $@ $<

.DEFAULT_GOAL := busybox
