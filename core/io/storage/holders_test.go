package storage

import (
	"os"
	"path/filepath"
	"testing"
)

func TestDescriptorTellsLocksAndWriters(t *testing.T) {
	exclusive := byteSet{201, 101}
	tests := []struct {
		name          string
		info          string
		locks, writes bool
	}{
		{"an OFD lock", "pos:\t0\nflags:\t02100002\nino:\t7\nlock:\t1: OFDLCK  ADVISORY  READ -1 fe:00:7 101 101\n", true, true},
		{"elsewhere", "flags:\t0100000\nlock:\t1: OFDLCK  ADVISORY  READ -1 fe:00:7 100 100\n", false, false},
		{"a range", "flags:\t0100000\nlock:\t1: POSIX  ADVISORY  WRITE 42 fe:00:7 0 1000\n", true, false},
		{"to the end", "flags:\t0100001\nlock:\t1: POSIX  ADVISORY  WRITE 42 fe:00:7 150 EOF\n", true, true},
		{"beyond", "flags:\t0100001\nlock:\t1: POSIX  ADVISORY  WRITE 42 fe:00:7 300 EOF\n", false, true},
		{"flock", "flags:\t0100000\nlock:\t1: FLOCK  ADVISORY  WRITE 42 fe:00:7 0 EOF\n", false, false},
		{"the second of two", "flags:\t0\nlock:\t1: OFDLCK ADVISORY READ -1 fe:00:7 100 100\nlock:\t2: OFDLCK ADVISORY READ -1 fe:00:7 201 201\n", true, false},
		{"nonsense", "flags:\nlock:\nlock:\t1: OFDLCK ADVISORY READ -1 x y z\n", false, false},
		{"empty", "", false, false},
	}
	for _, test := range tests {
		d := descriptor{info: []byte(test.info)}
		if d.locks(exclusive) != test.locks || d.writes() != test.writes {
			t.Errorf("%s: locks %v, writes %v", test.name, d.locks(exclusive), d.writes())
		}
	}
}

// TestWritersAreHoldersOfLastResort: a lock whose owner doesn't show is most
// likely a writer's.
func TestWritersAreHoldersOfLastResort(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a")
	writer, err := OS.Create(name, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := OS.Open(name, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	f := opened.(*osFile)
	holders := f.holders(byteSet{201})
	if len(holders) != 1 || holders[0].PID != os.Getpid() {
		t.Errorf("holders %v", holders)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if holders := f.holders(byteSet{201}); len(holders) != 0 {
		t.Errorf("nobody has it open for writing, but %v", holders)
	}
}
