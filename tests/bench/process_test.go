package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shell starts a server that is a line of shell, and stops it with the test.
func shell(t *testing.T, script string) *process {
	t.Helper()
	p, err := start("/bin/sh", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

func TestFirstLineThenTheRestIsDrained(t *testing.T) {
	p := shell(t, `echo /mnt/disk.raw; i=0; while [ $i -lt 5000 ]; do echo and much more, for more than a pipe holds; i=$((i+1)); done`)
	line, err := p.firstLine(t.Context())
	if err != nil || line != "/mnt/disk.raw" {
		t.Errorf("first line %q, %v", line, err)
	}
	if err := p.wait(); err != nil || !p.cmd.ProcessState.Success() {
		t.Errorf("wait: %v, %v", err, p.cmd.ProcessState)
	}
}

func TestAServerThatEndsEarlySaysWhy(t *testing.T) {
	const script = "echo first >&2; echo disk.vhd: in use >&2; exit 1"
	_, err := shell(t, script).firstLine(t.Context())
	if err == nil || !strings.Contains(err.Error(), "disk.vhd: in use") || !strings.Contains(err.Error(), "exit status 1") {
		t.Errorf("firstLine: %v", err)
	}
	err = shell(t, script).ready(t.Context(), func() bool { return false })
	if err == nil || !strings.Contains(err.Error(), "disk.vhd: in use") {
		t.Errorf("ready: %v", err)
	}
}

func TestReadyWaitsForTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "disk")
	p := shell(t, "printf 0123456789 >"+file+"; exec sleep 60")
	if err := p.ready(t.Context(), hasSize(file, 10)); err != nil {
		t.Fatal(err)
	}
	if err := p.ready(t.Context(), exists(file)); err != nil {
		t.Fatal(err)
	}
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := shell(t, "exec sleep 60")
	if _, err := p.firstLine(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("firstLine: %v", err)
	}
	if err := p.ready(ctx, func() bool { return false }); !errors.Is(err, context.Canceled) {
		t.Errorf("ready: %v", err)
	}
}

func TestTerminateAsksAndWaits(t *testing.T) {
	marker := filepath.Join(t.TempDir(), "flushed")
	p := shell(t, "trap 'echo >"+marker+"; exit' TERM; echo up; while :; do sleep 0.01; done")
	if _, err := p.firstLine(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.terminate(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(marker); err != nil {
		t.Errorf("the server was not given the time to flush: %v", err)
	}
	if err := p.terminate(); err != nil {
		t.Errorf("terminating what has ended: %v", err)
	}
}

func TestLastLine(t *testing.T) {
	for in, want := range map[string]string{"": "", "one": "one", "one\ntwo\n": "two", "one\n\n": "one"} {
		if got := lastLine(in); got != want {
			t.Errorf("lastLine(%q) = %q, want %q", in, got, want)
		}
	}
}
