# figures WHO...: fio on the block device of each server in turn, ours and
# tapdisk; "WHO JOB FIGURE" goes to the second serial port: IOPS, and KiB/s for
# sequential.
# shellcheck shell=sh disable=SC1091,SC2154
. /guest/lib.sh
scratch ext4
xen_module

# job NAME FIELD FIO-OPTION... runs fio and reports a field of its terse output.
job() {
	name=$1 field=$2
	shift 2
	fio --eta=never --name="$name" --filename="$disk" --ioengine=libaio --direct=1 --iodepth=32 --randrepeat=1 --minimal --terse-version=3 \
		--output=/tmp/fio.log "$@" || { cat /tmp/fio.log; fail "fio $name"; }
	figure=$(grep '^3;' /tmp/fio.log | cut -d ';' -f "$field")
	echo "$who $name $figure" | tee /dev/ttyS1
}
read_bw=7 read_iops=8 write_iops=49

for who in "$@"; do
	vhdmount create 2G "/mnt/s/$who.vhd"
	case $who in
	ours) disk=$(vhdmount mount --frontend blktap "/mnt/s/$who.vhd") ;;
	tapdisk) disk=$(tap-ctl create -a "vhd:/mnt/s/$who.vhd") ;;
	esac
	job allocating $write_iops --rw=randwrite --bs=4k --io_size=48M
	dd if=/dev/urandom of="$disk" bs=1M count=256 oflag=direct 2>/dev/null
	sync
	job randread $read_iops --rw=randread --bs=4k --size=256M --time_based --runtime=10
	job randwrite $write_iops --rw=randwrite --bs=4k --size=256M --time_based --runtime=10
	job seqread $read_bw --rw=read --bs=128k --size=256M --time_based --runtime=10
	case $who in
	ours) vhdmount unmount "$disk" ;;
	tapdisk) tap-ctl destroy -m "${disk#"$dir"/tapdev}" -p "$(tap-ctl list | sed -n 's/^pid=\([0-9]*\).*/\1/p')" ;;
	esac
	vhdmount check "/mnt/s/$who.vhd"
	rm "/mnt/s/$who.vhd"
done
