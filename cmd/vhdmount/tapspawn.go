package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/confine"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/daemon"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/exitcode"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/signals"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapctl"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapdisk"
)

// spawnTimeout is how long a tapdisk that is not ours may take to say where it
// listens; lineMax how much it may say, in bytes.
const (
	spawnTimeout = 10 * time.Second
	lineMax      = 4096
)

// spawner starts tapdisks.
type spawner struct {
	getenv func(string) string
}

// spawn starts the program that $TAPDISK or $TAPDISK2 names, as tap-ctl does,
// or else this one, and returns the number in its socket's name.
func (s *spawner) spawn(ctx context.Context) (int, error) {
	if program := cmp.Or(s.getenv("TAPDISK"), s.getenv("TAPDISK2")); program != "" {
		return spawnForeign(ctx, program)
	}
	path, err := daemon.Start(ctx, []string{"tap", tapdiskName})
	if err != nil {
		return 0, startError("tapdisk", err)
	}
	return socketPID("this program", path)
}

// spawnForeign starts a tapdisk that goes to the background by itself: the
// process that was started ends, and another says on its standard output where
// it listens.
func spawnForeign(ctx context.Context, program string) (int, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("spawn: %w", err)
	}
	defer read.Close()
	cmd := exec.CommandContext(ctx, program)
	cmd.Stdout, cmd.Stderr = write, os.Stderr
	err = cmd.Start()
	write.Close()
	if err != nil {
		return 0, fmt.Errorf("spawn: %w", err)
	}
	line, err := socketLine(read)
	if err != nil {
		cmd.Process.Kill() // what hangs, or says no end of things
		return 0, fmt.Errorf("spawn: %s does not say where it listens: %w", program, errors.Join(err, cmd.Wait()))
	}
	if err := cmd.Wait(); err != nil {
		return 0, fmt.Errorf("spawn: %s: %w", program, err)
	}
	return socketPID(program, line)
}

// socketLine is the first line that comes in time, without its end.
func socketLine(read *os.File) (string, error) {
	if err := read.SetReadDeadline(time.Now().Add(spawnTimeout)); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(io.LimitReader(read, lineMax)).ReadString('\n')
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return "", err
	case len(line) == lineMax:
		return "", bufio.ErrTooLong
	}
	return strings.TrimSpace(line), nil
}

// socketPID is the number in the name of the socket that program printed.
func socketPID(program, line string) (int, error) {
	pid, ok := tapctl.ParseSocket(line)
	if !ok {
		return 0, fmt.Errorf("spawn: %s says %q, which is no tapdisk's socket", program, line)
	}
	return pid, nil
}

// tapdiskName is the name of the program, and of the verb, that is a tapdisk.
const tapdiskName = "tapdisk"

// argumentsOf is the command's arguments: under one of the names by which
// tap-ctl starts a tapdisk, those of the verb that is one.
func argumentsOf(argv []string) []string {
	switch filepath.Base(argv[0]) {
	case tapdiskName, "tapdisk2":
		return append([]string{"tap", tapdiskName}, argv[1:]...)
	}
	return argv[1:]
}

// tapdiskVerb is a tapdisk itself.
func (t *tapTool) tapdiskVerb() *cli.Command {
	verb := t.verbOf(tapdiskName, "[-D]", "be a tapdisk, and print its socket", t.tapdisk, boolFlag("foreground", "D", "stay in the foreground, and log to standard error"))
	verb.Hidden = true
	return verb
}

func (t *tapTool) tapdisk(c *cli.Context) error {
	if child, ok := daemon.Child(); ok {
		return t.tapdiskInBackground(c, child)
	}
	if c.Bool("foreground") {
		return t.serveTapdisk(&foreground{stdout: c.App.Writer, stderr: c.App.ErrWriter})
	}
	path, err := daemon.Start(c.Context, os.Args[1:])
	if err != nil {
		return startError(tapdiskName, err)
	}
	_, err = fmt.Fprintln(c.App.Writer, path)
	return err
}

// tapdiskInBackground serves in the process that daemon.Start started. A
// failure to listen goes to the one that waits.
func (t *tapTool) tapdiskInBackground(c *cli.Context, child *daemon.Readiness) error {
	b := &background{child: child, stderr: c.App.ErrWriter}
	err := t.serveTapdisk(b)
	if err == nil || b.ready {
		return err // to the log, which is standard error by now
	}
	if failErr := child.Fail(tapCode(err), tapMessage{err}.Error()); failErr != nil {
		return err // nobody waits: say it here
	}
	return &exitcode.Error{Code: tapCode(err), Err: errReported}
}

// serveTapdisk listens, and serves until the last disk was detached.
func (t *tapTool) serveTapdisk(st stage) error {
	signals.IgnoreWriteSignals()
	limitMemory()
	limitToWholeSectors()
	makeRoomForRing()
	err := t.runTapdisk(st)
	return errors.Join(err, st.close(err))
}

func (t *tapTool) runTapdisk(st stage) error {
	received, stop := signals.Terminating()
	defer stop()
	dir, err := openRegistry()
	if err != nil {
		return err
	}
	out, err := st.openLog(dir.Log(tapdiskName + "-" + strconv.Itoa(os.Getpid())))
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(out, nil))
	server := tapdisk.New(tapdisk.Options{Driver: t.driver, Dir: t.dir.Path, LockMemory: true, Log: log})
	if err := server.Listen(); err != nil {
		return err
	}
	if t.confined {
		log.Debug("confined", "without", confine.Apply(confine.Options{AnyFile: true, Keep: blktapCapabilities}))
	}
	if err := st.announce(server.Socket()); err != nil {
		return errors.Join(err, server.Close())
	}
	return server.Run(received)
}

// startError is why a server in the background could not be started: in its
// own words, if it had any.
func startError(what string, err error) error {
	var failed *daemon.FailedError
	if errors.As(err, &failed) {
		return &exitcode.Error{Code: failed.Code, Err: finished{failed}}
	}
	return fmt.Errorf("%s: %w", what, err)
}
