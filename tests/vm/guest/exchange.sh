# Images of one program are the other's to go on with, and back: dynamic ones
# and chains, judged by both.
# shellcheck shell=sh disable=SC1091,SC2154
. /guest/lib.sh
scratch ext4
xen_module

# ours IMAGE COMMAND... and theirs IMAGE COMMAND... run a command with the
# image's file system at /mnt/d.
ours() {
	disk=$(vhdmount mount --frontend blktap "$1")
	shift
	mount "$disk" /mnt/d
	"$@"
	umount /mnt/d
	vhdmount unmount "$disk"
}
theirs() {
	disk=$(tap-ctl create -a "vhd:$1")
	shift
	mount "$disk" /mnt/d
	"$@"
	umount /mnt/d
	minor=${disk#"$dir"/tapdev}
	tap-ctl destroy -m "$minor" -p "$(tap-ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\).*/\1/p')"
}
put() { dd if=/dev/urandom of="/mnt/d/$1" bs=1M count=6 conv=fsync 2>/dev/null && sum "/mnt/d/$1" >"/tmp/$1.sum"; }
holds() { for name in "$@"; do equal "$(sum "/mnt/d/$name")" "$(cat "/tmp/$name.sum")"; done; }
judged() {
	vhd-util check -n "$1"
	vhdmount check "$1"
}
mkdir -p /mnt/d

vhdmount create 256M /mnt/s/ours.vhd
disk=$(vhdmount mount --frontend blktap /mnt/s/ours.vhd)
mkfs.ext4 -q "$disk"
vhdmount unmount "$disk"
vhd-util create -n /mnt/s/theirs.vhd -s 256
disk=$(tap-ctl create -a vhd:/mnt/s/theirs.vhd)
mkfs.ext4 -q "$disk"
tap-ctl destroy -m "${disk#"$dir"/tapdev}" -p "$(tap-ctl list | sed -n 's/^pid=\([0-9]*\).*/\1/p')"

for image in ours theirs; do
	judged /mnt/s/$image.vhd
	ours /mnt/s/$image.vhd put $image-1
	judged /mnt/s/$image.vhd
	theirs /mnt/s/$image.vhd holds $image-1
	theirs /mnt/s/$image.vhd put $image-2
	judged /mnt/s/$image.vhd
	ours /mnt/s/$image.vhd holds $image-1 $image-2
done

# A child by each of a parent by the other.
vhd-util snapshot -n /mnt/s/child-1.vhd -p /mnt/s/ours.vhd
vhdmount snapshot /mnt/s/theirs.vhd /mnt/s/child-2.vhd
ours /mnt/s/child-1.vhd holds ours-1 ours-2
theirs /mnt/s/child-2.vhd holds theirs-1 theirs-2
ours /mnt/s/child-1.vhd put ours-3
theirs /mnt/s/child-2.vhd put theirs-3
judged /mnt/s/child-1.vhd
judged /mnt/s/child-2.vhd
theirs /mnt/s/child-1.vhd holds ours-1 ours-2 ours-3
ours /mnt/s/child-2.vhd holds theirs-1 theirs-2 theirs-3
ours /mnt/s/child-2.vhd put theirs-4
theirs /mnt/s/child-2.vhd holds theirs-3 theirs-4
judged /mnt/s/child-2.vhd
rmmod blktap
