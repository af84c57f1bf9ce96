# shellcheck shell=sh
# What the scripts share; each begins with ". /guest/lib.sh".

# fail WHAT ends the script.
fail() {
	echo "FAILED: $*"
	exit 1
}

# want TEXT WORDS... demands that the words are in the text.
want() {
	case $1 in *"$2"*) ;; *) fail "\"$1\" has no \"$2\"" ;; esac
}

# equal A B demands that they are the same.
equal() { [ "$1" = "$2" ] || fail "\"$1\" is not \"$2\""; }

# await SECONDS COMMAND... waits for the command to succeed.
await() {
	deadline=$(($(date +%s) + $1))
	shift
	until "$@"; do
		[ "$(date +%s)" -lt "$deadline" ] || fail "in time: $*"
		sleep 0.2
	done
}

# scratch FILESYSTEM makes a file system on the second disk, at /mnt/s, for images
# to lie on.
scratch() {
	mkdir -p /mnt/s
	if [ "$1" = xfs ]; then
		mkfs.xfs -q /dev/vdb
	else
		mkfs.ext4 -q -E nodiscard /dev/vdb
	fi
	mount /dev/vdb /mnt/s
}

# verify FILE SIZE [FIO-OPTION...] writes a file at random and reads it back
# with checksums.
verify() {
	file=$1 size=$2
	shift 2
	fio --eta=never --name=verify --filename="$file" --size="$size" --rw=randwrite --bs=4k --iodepth=32 --ioengine=libaio --direct=1 \
		--verify=crc32c --do_verify=1 --verify_fatal=1 --minimal --output=/tmp/fio.log "$@" || { cat /tmp/fio.log; fail "fio on $file"; }
}

# sum FILE prints the file's checksum alone.
sum() { sha256sum "$1" | cut -d ' ' -f 1; }

# module loads blktap. Its devices are all below $dir.
module() {
	insmod /blktap.ko
	export dir=/dev/xen/blktap-2
}

# xen_module is module for Xen's tap-ctl, which looks for the control device
# by the name that XenServer's module gives it, unless the node is there.
xen_module() {
	module
	mkdir -p "$dir"
	mknod "$dir/control" c 10 "$(awk '$2 == "blktap-control" { print $1 }' /proc/misc)"
}

# no_minors tells whether none is allocated. The module frees one in the
# background.
no_minors() { [ -z "$(find /sys/class/blktap2/ -mindepth 1 -name 'blktap[0-9]*')" ]; }

# file_system DEVICE makes an ext4 file system and mounts it at /mnt/d.
file_system() {
	mkfs.ext4 -q "$1"
	mkdir -p /mnt/d
	mount "$1" /mnt/d
}

# server IMAGE is the number of the process that serves it.
server() { vhdmount list --json | grep -A 20 "\"$1\"" | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' | head -n 1; }

# gone PID tells whether the process has ended.
gone() { [ ! -d "/proc/$1" ]; }
