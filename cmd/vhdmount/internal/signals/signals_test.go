package signals

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTerminatingDeliversEachOfTheThree(t *testing.T) {
	c, stop := Terminating()
	defer stop()
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP} {
		if err := unix.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
		if got := <-c; got != sig {
			t.Errorf("got %v, want %v", got, sig)
		}
	}
}

func TestSignalsBeforeAnybodyReceivesAreKept(t *testing.T) {
	c, stop := Terminating()
	defer stop()
	other, stopOther := Terminating()
	defer stopOther()
	if err := unix.Kill(os.Getpid(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-other // delivered to both
	if got := <-c; got != unix.SIGTERM {
		t.Errorf("got %v", got)
	}
}

func TestAWriteToABrokenPipeIsAnError(t *testing.T) {
	IgnoreWriteSignals()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	if _, err := w.Write([]byte("x")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("got %v", err)
	}
}

func TestAWritePastTheFileSizeLimitIsAnError(t *testing.T) {
	IgnoreWriteSignals()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 4096, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("x"), 4096)
	if restoreErr := unix.Setrlimit(unix.RLIMIT_FSIZE, &old); restoreErr != nil {
		t.Fatal(restoreErr)
	}
	if !errors.Is(err, unix.EFBIG) {
		t.Errorf("got %v", err)
	}
}
