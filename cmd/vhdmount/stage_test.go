package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheForegroundPrintsThePathAtOnce(t *testing.T) {
	var printed, stderr strings.Builder
	buffered := bufio.NewWriter(&printed) // as run has it
	f := &foreground{stdout: buffered, stderr: &stderr}
	must(t, f.announce("/mnt/disk.raw"))
	if printed.String() != "/mnt/disk.raw\n" {
		t.Errorf("printed %q", &printed)
	}
	f.warn("odd\nindeed")
	if stderr.String() != "vhdmount: warning: odd\uFFFDindeed\n" {
		t.Errorf("warned %q", &stderr)
	}
	log, err := f.openLog("/nowhere")
	if err != nil || log != io.Writer(&stderr) || f.logPath() != "" {
		t.Errorf("log %v, %v, at %q", log, err, f.logPath())
	}
	must(t, f.close(errors.New("boom")))
}

func TestTheBackgroundsLogStaysWhenItSaysWhatWentWrong(t *testing.T) {
	for name, c := range map[string]struct {
		ready bool
		err   error
		kept  bool
	}{
		"ended well":              {true, nil, false},
		"failed while serving":    {true, errors.New("input/output error"), true},
		"failed before the start": {false, errors.New("no such image"), false}, // the user was told
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.log")
			b := &background{stderr: io.Discard}
			log, err := b.openLog(path)
			must(t, err)
			_, err = io.WriteString(log, "a line\n")
			must(t, err)
			if b.logPath() != path {
				t.Errorf("log at %q", b.logPath())
			}
			b.ready = c.ready
			must(t, b.close(c.err))
			if _, err := os.Stat(path); (err == nil) != c.kept {
				t.Errorf("kept: %v, want %v", err == nil, c.kept)
			}
		})
	}
}

func TestTheBackgroundWithoutALogClosesAllTheSame(t *testing.T) {
	b := &background{stderr: io.Discard}
	if _, err := b.openLog(filepath.Join(t.TempDir(), "none", "x.log")); err == nil {
		t.Error("a log in a directory that isn't there")
	}
	must(t, b.close(errors.New("boom")))
}
