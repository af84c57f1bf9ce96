# rootdisk first|second: the root file system is on the image itself, and what
# one boot writes the next one finds.
# shellcheck shell=sh disable=SC1091
. /guest/lib.sh
case $1 in
first)
	mkdir /data
	dd if=/dev/urandom of=/data/file bs=1M count=16 2>/dev/null
	sha256sum /data/file >/data/sum
	echo "of the first boot" >/data/word
	;;
second)
	sha256sum -c /data/sum
	want "$(cat /data/word)" "of the first boot"
	echo "of the second boot" >/data/word
	;;
esac
sync
mount -o remount,ro /
