// Package vm boots machines with mounted disks in them.
//
// With -vm, which `make test` gives, a program of one sector boots from a
// mounted disk, and from the image after it was unmounted.
//
// With -kernel, which `make test-vm` gives, Debian's Linux boots under qemu,
// which emulates the processor, with the built program in it and a read-only
// root, and runs one of the scripts in guest. Its console is kept if it fails.
// The kernel comes from its package by scripts/guest-kernel and is installed
// nowhere; the guest's programs and their libraries are this machine's.
//
// # The blktap module
//
// Debian has none, and none is kept here: whoever wants these tests builds one.
// The branch openxt of github.com/ydirson/blktap-module builds against
// linux-headers of Debian's 6.1, out of tree: in drivers/block/blktap,
//
//	make -C /usr/src/linux-headers-6.1.0-NN-amd64 M=$PWD CONFIG_BLK_DEV_TAP=m \
//		KCFLAGS=-I$(realpath ../../../include) modules
//
// and the guest's kernel is then the one that the module was built for. Xen's
// tapdisk, tap-ctl and vhd-util are in github.com/xapi-project/blktap; the
// parent of commit 301d298 is the last that knows the module. It needs
// autoconf, automake, libtool, libaio-dev, uuid-dev, libxen-dev and
// libssl-dev, a file VERSION with a number in it before autogen.sh, and for a
// current autoconf and compiler
//
//	./configure --prefix=/usr ac_cv_lib__iconv_open=yes --without-libiconv
//	make CFLAGS="-g -O2 -w -Wno-error"
//
// whose last directory, mockatests, wants libcmocka-dev too and is not needed.
//
// Then, with the directory in which that was built or into which it was
// installed:
//
//	make test-vm      BLKTAP_KO=…/blktap.ko TAPDISK_BUILD=…
//	make bench-blktap BLKTAP_KO=…/blktap.ko TAPDISK_BUILD=…
package vm
