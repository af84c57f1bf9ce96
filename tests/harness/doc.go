// Package harness is what the tests of the built program share: it builds the
// program once a package, gives each test a Box, a world of its own with a
// runtime directory that no other mount of the machine meets, and runs the
// program and its peers there.
//
// A test says what it needs: Fuse, Root, Tools, QEMU. The flag of that name,
//
//	go test ./tests/mount -fuse -root -tools -qemu
//
// makes a missing need a failure; without the flag the test skips itself.
//
//	func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }
//
//	func TestDiskKeepsWhatIsWritten(t *testing.T) {
//		harness.Fuse(t)
//		b := harness.New(t)
//		b.OK("create", "64M", "disk.vhd")
//		m := b.Mount("disk.vhd")
//		…
//		m.Unmount()
//	}
//
// The server runs under the race detector, where the machine has a C compiler
// for it (under go test -race and in CI it must have one); a race fails the test
// that met it. When a test ends, whatever it left mounted, looped or running is
// taken away.
package harness
