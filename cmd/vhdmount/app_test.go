package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/exitcode"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/mountopts"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
	"github.com/vhdmount/vhdmount/frontend/blktap"
)

// planOf is the plan that `mount` makes of args, by the whole command line's
// rules.
func planOf(t *testing.T, args ...string) (plan mountPlan, err error) {
	t.Helper()
	app := newApp(io.Discard, io.Discard)
	app.Command("mount").Action = func(c *cli.Context) error {
		var planErr error
		plan, planErr = planMount(c)
		return planErr
	}
	return plan, runApp(app, append([]string{"mount"}, args...))
}

func TestMountPlanOfAnImageAlone(t *testing.T) {
	plan, err := planOf(t, "disk.vhd")
	if err != nil {
		t.Fatal(err)
	}
	if plan.image != "disk.vhd" || plan.mountpoint != "" || plan.frontend != "fuse" || plan.foreground || plan.direct ||
		plan.open.ReadOnly || plan.open.Durability != vhd.Writeback || plan.open.SizeFrom != format.SizeAuto ||
		plan.logLevel != slog.LevelInfo || plan.logFormat != "text" {
		t.Errorf("%+v", plan)
	}
}

func TestMountPlanOfEveryFlag(t *testing.T) {
	plan, err := planOf(t, "disk.vhd", "-rf", "mnt", "--durability", "unsafe", "--parent=a,b.vhd", "--parent-dir", "/p", "--parent-dir=/q,r",
		"--force-parent", "--direct-io", "--size-from", "geometry", "-o", "allow_other,uid=7", "-oumask=022", "--log-level=debug", "--log-format=json")
	if err != nil {
		t.Fatal(err)
	}
	o := plan.open
	if !o.ReadOnly || o.Durability != vhd.Unsafe || o.Parent != "a,b.vhd" || !slices.Equal(o.ParentDirs, []string{"/p", "/q,r"}) ||
		!o.ForceParent || o.SizeFrom != format.SizeGeometry {
		t.Errorf("how to open: %+v", o)
	}
	if plan.mountpoint != "mnt" || !plan.foreground || !plan.direct || plan.logLevel != slog.LevelDebug || plan.logFormat != "json" {
		t.Errorf("plan: %+v", plan)
	}
	if !plan.options.AllowOther || *plan.options.UID != 7 || *plan.options.Umask != 0o022 {
		t.Errorf("mount options: %+v", plan.options)
	}
}

func TestReadOnlyIsAskedForInAnyOfThreeWays(t *testing.T) {
	for _, args := range [][]string{{"-r"}, {"--read-only"}, {"-o", "ro"}, {"-r", "-o", "rw"}, {"-r", "--read-only"}} {
		plan, err := planOf(t, append(args, "disk.vhd")...)
		if err != nil || !plan.open.ReadOnly {
			t.Errorf("%v: %+v, %v", args, plan, err)
		}
	}
}

func TestArgumentsAfterTwoDashesAreNoFlags(t *testing.T) {
	plan, err := planOf(t, "--", "-r", "--json")
	if err != nil || plan.image != "-r" || plan.mountpoint != "--json" || plan.open.ReadOnly {
		t.Errorf("%+v, %v", plan, err)
	}
}

func TestAnImageMayHaveAVerbsName(t *testing.T) {
	for _, name := range []string{"help", "h", "mount", "json"} {
		plan, err := planOf(t, name)
		if err != nil || plan.image != name {
			t.Errorf("%s: %+v, %v", name, plan, err)
		}
	}
}

func TestChooseFrontend(t *testing.T) {
	there := func() error { return nil }
	missing := func() error { return blktap.ErrNoModule }
	files := mountopts.Options{AllowOther: true}
	for _, test := range []struct {
		asked, mountpoint string
		options           mountopts.Options
		available         func() error
		want              string // empty: a usage error
	}{
		{asked: "auto", available: missing, want: "fuse"},
		{asked: "auto", available: there, want: "blktap"},
		{asked: "auto", available: there, options: mountopts.Options{ReadOnly: true}, want: "blktap"},
		{asked: "auto", available: there, mountpoint: "mnt", want: "fuse"},
		{asked: "auto", available: there, options: files, want: "fuse"},
		{asked: "fuse", available: there, want: "fuse"},
		{asked: "blktap", available: missing, want: "blktap"}, // which says that there is none when it is attached
		{asked: "blktap", available: there, mountpoint: "mnt"},
		{asked: "blktap", available: there, options: files},
		{asked: "nbd", available: there},
	} {
		got, err := chooseFrontend(test.asked, test.mountpoint, test.options, test.available)
		if got != test.want || (err != nil) != (test.want == "") {
			t.Errorf("%+v: %q, %v", test, got, err)
		}
		if err != nil && exitcode.Of(err) != exitcode.Usage {
			t.Errorf("%+v: exit code %d", test, exitcode.Of(err))
		}
	}
}

func TestRevision(t *testing.T) {
	setting := func(key, value string) debug.BuildSetting { return debug.BuildSetting{Key: key, Value: value} }
	for want, settings := range map[string][]debug.BuildSetting{
		"":              {setting("GOOS", "linux")},
		"abc":           {setting("vcs.revision", "abc"), setting("vcs.modified", "false")},
		"abc, modified": {setting("vcs.modified", "true"), setting("vcs.revision", "abc")},
	} {
		if got := revision(settings); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestErrorsAreOneLineOnStandardError(t *testing.T) {
	var stdout, stderr bytes.Buffer
	code := run([]string{"info", "no\nsuch\nimage"}, &stdout, &stderr)
	if code != exitcode.Failed || stdout.Len() != 0 || bytes.Count(stderr.Bytes(), []byte("\n")) != 1 {
		t.Errorf("code %d, stdout %q, stderr %q", code, &stdout, &stderr)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestOutputThatCantBeWrittenIsAFailure(t *testing.T) {
	var stderr bytes.Buffer
	if code := run([]string{"--version"}, full{}, &stderr); code != exitcode.Failed {
		t.Errorf("code %d", code)
	}
	if got := stderr.String(); got != "vhdmount: standard output: no space left on device\n" {
		t.Errorf("stderr %q", got)
	}
}
