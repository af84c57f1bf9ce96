package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// holderVariable makes the test binary a server that holds an entry until its
// standard input ends.
const holderVariable = "REGISTRY_TEST_HOLD"

func TestMain(m *testing.M) {
	if path := os.Getenv(holderVariable); path != "" {
		hold(path)
		return
	}
	os.Exit(m.Run())
}

func hold(path string) {
	d, err := Open(path)
	if err == nil {
		_, err = d.Add("held", sample("/images/held.vhd"))
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("holding")
	os.Stdin.Read(make([]byte, 1))
}

// startHolder returns a process that holds the entry "held" of d.
func startHolder(t *testing.T, d *Dir) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holderVariable+"="+d.Path())
	stdin, err := cmd.StdinPipe()
	check(t, err)
	stdout, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	t.Cleanup(func() { stdin.Close(); cmd.Process.Kill(); cmd.Wait() })
	line := make([]byte, 100)
	n, err := stdout.Read(line)
	if err != nil || string(line[:n]) != "holding\n" {
		t.Fatalf("holder: %q, %v", line[:n], err)
	}
	return cmd
}

func sample(image string) Entry {
	return Entry{
		Image: image, Disk: "/mnt/disk.raw", Mountpoint: "/mnt", MadeMountpoint: true, Frontend: "fuse",
		PID: 17, Since: time.Unix(1700000000, 0).UTC(), ReadOnly: true, Log: "/run/x.log",
	}
}

func TestAnEntryReadsBackWholeAndAlive(t *testing.T) {
	d := open(t)
	h, err := d.Add("disk-1", sample("/images/disk.vhd"))
	check(t, err)
	records, err := d.Records()
	check(t, err)
	want := []Record{{Name: "disk-1", Entry: sample("/images/disk.vhd"), Alive: true}}
	if !reflect.DeepEqual(records, want) {
		t.Errorf("got  %+v\nwant %+v", records, want)
	}
	check(t, h.Remove())
	if records, err := d.Records(); err != nil || len(records) != 0 {
		t.Errorf("after Remove: %+v, %v", records, err)
	}
	left, err := os.ReadDir(d.Path())
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestRemoveTakesTheSocketAlong(t *testing.T) {
	d := open(t)
	h, err := d.Add("disk-1", sample("/images/disk.vhd"))
	check(t, err)
	check(t, os.WriteFile(d.Socket("disk-1"), nil, 0o600))
	check(t, h.Remove())
	if _, err := os.Stat(d.Socket("disk-1")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket: %v", err)
	}
}

func TestTheEntryOfAKilledServerIsDeadWhateverItsPIDDoes(t *testing.T) {
	d := open(t)
	cmd := startHolder(t, d)
	records, err := d.Records()
	if err != nil || len(records) != 1 || !records[0].Alive {
		t.Fatalf("while it lives: %+v, %v", records, err)
	}
	if err := d.Clear("held"); !errors.Is(err, ErrAlive) {
		t.Errorf("Clear of a living one: %v", err)
	}
	check(t, cmd.Process.Kill())
	cmd.Wait()
	records, err = d.Records()
	if err != nil || len(records) != 1 || records[0].Alive {
		t.Fatalf("after its death: %+v, %v", records, err)
	}
	check(t, os.WriteFile(d.Log("held"), []byte("panic"), 0o600))
	check(t, d.Clear("held"))
	check(t, d.Clear("held")) // gone already
	if records, err := d.Records(); err != nil || len(records) != 0 {
		t.Errorf("after Clear: %+v, %v", records, err)
	}
	if _, err := os.Stat(d.Log("held")); err != nil {
		t.Errorf("the log that says why it died: %v", err)
	}
}

func TestWaitReturnsWhenTheServerLetsGoAndNotBefore(t *testing.T) {
	d := open(t)
	synctest.Test(t, func(t *testing.T) {
		h, err := d.Add("disk-1", sample("/images/disk.vhd"))
		check(t, err)
		w, err := d.Watch("disk-1")
		check(t, err)
		defer w.Close()
		done := make(chan error, 1)
		go func() { done <- w.Wait(t.Context()) }()
		time.Sleep(time.Hour) // of the bubble's own time
		select {
		case err := <-done:
			t.Errorf("returned while the entry was held: %v", err)
		default:
		}
		check(t, h.Remove())
		check(t, <-done)
	})
}

func TestWaitSeesTheEndOfAnEntryThatWasRemoved(t *testing.T) {
	d := open(t)
	h, err := d.Add("disk-1", sample("/images/disk.vhd"))
	check(t, err)
	w, err := d.Watch("disk-1")
	check(t, err)
	defer w.Close()
	check(t, h.Remove())
	check(t, w.Wait(t.Context()))
	gone, err := d.Watch("disk-1")
	check(t, err)
	check(t, gone.Wait(t.Context()))
	check(t, gone.Close())
}

func TestWaitEndsWithItsContext(t *testing.T) {
	d := open(t)
	h, err := d.Add("disk-1", sample("/images/disk.vhd"))
	check(t, err)
	defer h.Remove()
	w, err := d.Watch("disk-1")
	check(t, err)
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestManyReadersNeverTakeALivingServerForDead(t *testing.T) {
	d := open(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			name := fmt.Sprintf("disk-%d", i)
			for range 50 {
				h, err := d.Add(name, sample("/images/"+name))
				if err != nil {
					t.Error(err)
					return
				}
				records, err := d.Records()
				if err != nil {
					t.Error(err)
				}
				alive := false
				for _, r := range records {
					alive = alive || r.Name == name && r.Alive
				}
				if !alive {
					t.Errorf("%s isn't among %+v", name, records)
				}
				if err := h.Remove(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

func TestABrokenEntryIsReportedAndHidesNoOther(t *testing.T) {
	d := open(t)
	h, err := d.Add("good", sample("/images/disk.vhd"))
	check(t, err)
	defer h.Remove()
	check(t, os.WriteFile(d.entry("bad"), []byte("{"), 0o600))
	check(t, os.WriteFile(filepath.Join(d.Path(), ".new.tmp"), []byte("{"), 0o600))
	records, err := d.Records()
	if err == nil || !strings.Contains(err.Error(), "bad.json") {
		t.Errorf("error %v; want the file's name in it", err)
	}
	if len(records) != 1 || records[0].Name != "good" {
		t.Errorf("got %+v", records)
	}
	check(t, d.Clear("bad"))
	if _, err := d.Records(); err != nil {
		t.Errorf("after Clear: %v", err)
	}
}

func TestRecordsAreInTheOrderOfMounting(t *testing.T) {
	d := open(t)
	for i, name := range []string{"c", "a", "b"} {
		e := sample("/images/" + name)
		e.Since = e.Since.Add(time.Duration(i) * time.Minute)
		h, err := d.Add(name, e)
		check(t, err)
		defer h.Remove()
	}
	records, err := d.Records()
	check(t, err)
	if got := records[0].Name + records[1].Name + records[2].Name; got != "cab" {
		t.Errorf("order %s, want cab", got)
	}
}

func TestNamesOfOneImageDiffer(t *testing.T) {
	a, b := NewName("/images/disk.vhd"), NewName("/images/disk.vhd")
	if a == b || !strings.HasPrefix(a, "disk-") {
		t.Errorf("%s, %s", a, b)
	}
	if long := NewName("/images/" + strings.Repeat("x", 200)); len(long) > 50 {
		t.Errorf("%d bytes: %s", len(long), long)
	}
}

func TestAnUpdatedEntryStaysLockedAndWatched(t *testing.T) {
	d := open(t)
	name := NewName("a.vhd")
	h, err := d.Add(name, Entry{Image: "/a.vhd"})
	check(t, err)
	watch, err := d.Watch(name)
	check(t, err)
	defer watch.Close()
	check(t, h.Update(Entry{Image: "/b.vhd"}))
	records, err := d.Records()
	if err != nil || len(records) != 1 || records[0].Entry.Image != "/b.vhd" || !records[0].Alive {
		t.Errorf("records %+v, %v", records, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*pollInterval)
	defer cancel()
	if err := watch.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a watch from before the update ended: %v", err)
	}
	check(t, h.Remove())
	check(t, watch.Wait(t.Context()))
	if records, err := d.Records(); err != nil || len(records) != 0 {
		t.Errorf("records %+v, %v", records, err)
	}
}

// TestATornEntryIsWrittenAgain, and one that says what it should is let be.
func TestATornEntryIsWrittenAgain(t *testing.T) {
	d := open(t)
	want := sample("/a.vhd")
	h, err := d.Add("disk", want)
	check(t, err)
	defer h.Remove()
	whole, err := os.ReadFile(d.entry("disk"))
	check(t, err)
	for _, torn := range []string{"", "{", strings.Replace(string(whole), "fuse", "fusd", 1), string(whole) + "}"} {
		check(t, os.WriteFile(d.entry("disk"), []byte(torn), 0o600))
		check(t, h.Update(want))
		if got, err := os.ReadFile(d.entry("disk")); err != nil || string(got) != string(whole) {
			t.Errorf("%q became %q, %v", torn, got, err)
		}
	}
	old := time.Now().Add(-time.Hour)
	check(t, os.Chtimes(d.entry("disk"), old, old))
	check(t, h.Update(want))
	if info, err := os.Stat(d.entry("disk")); err != nil || !info.ModTime().Before(old.Add(time.Minute)) {
		t.Errorf("written though it said so: %v", err)
	}
}

func TestPathsNeedNotBeUTF8(t *testing.T) {
	d := open(t)
	want := Entry{Image: "/a\xff.vhd", Disk: "/m\xfe/disk.raw", Mountpoint: "/m\xfe", Log: "/plain.log"}
	h, err := d.Add("odd", want)
	check(t, err)
	defer h.Remove()
	records, err := d.Records()
	check(t, err)
	if got := records[0].Entry; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if found := Find(records, "/m\xfe"); len(found) != 1 {
		t.Error("not found by its mount point")
	}
}
