package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/control"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/livedisk"
	"github.com/vhdmount/vhdmount/frontend"
)

// world is a session, an image and a write-back that keep a diary.
type world struct {
	mu    sync.Mutex
	diary []string

	busy      bool  // programs have the disk open
	flushErr  error // what Detach and Flush meet
	lastErr   error // what the flush after the last request meets
	closeErr  error
	stopErr   error
	deadErr   error // the image's Err
	unflushed error // the image's FlushError
	pauseErr  error
	paused    bool
	owner     livedisk.Owner
	trouble   error // what Unpause meets
	away      bool  // somebody else took it out of sight
	elsewhere bool  // another mount namespace has it mounted
	left      chan struct{}
	ended     chan error
	endedOnce sync.Once
}

func newWorld() *world { return &world{ended: make(chan error, 1), left: make(chan struct{})} }

func (w *world) note(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.diary = append(w.diary, what)
}

func (w *world) end(err error) { w.endedOnce.Do(func() { w.ended <- err; close(w.ended) }) }

// leave is the last program that closes the disk.
func (w *world) leave() { w.end(nil); close(w.left) }

func (w *world) Path() string { return "/mnt/disk.raw" }
func (w *world) Wait() error  { return <-w.ended }

func (w *world) Detach(ctx context.Context) error {
	w.mu.Lock()
	busy, err := w.busy, w.flushErr
	w.mu.Unlock()
	switch lazy := frontend.Lazy(ctx); {
	case err != nil && lazy:
		w.note("hide unflushed")
		if !busy {
			w.end(nil)
		}
		return fmt.Errorf("%w: %w", frontend.ErrUnflushed, err)
	case err != nil:
		w.note("detach refused")
		return err
	case w.lastErr != nil:
		w.note("detach")
		w.end(nil)
		return fmt.Errorf("%w: %w", frontend.ErrUnflushed, w.lastErr)
	case w.away && !lazy: // waits for its users, as the frontends do
		w.note("detach waits")
		select {
		case <-w.left:
		case <-ctx.Done():
		}
		return ctx.Err()
	case w.elsewhere && !lazy:
		w.note("detach here")
		return fmt.Errorf("%w: %w, but elsewhere", frontend.ErrBusy, frontend.ErrHidden)
	case busy && !lazy:
		w.note("detach busy")
		return fmt.Errorf("%w: less (pid 17)", frontend.ErrBusy)
	case busy:
		w.note("hide")
		return nil
	}
	w.note("detach")
	w.end(nil)
	return nil
}

func (w *world) Flush() error { w.note("flush"); return w.flushErr }
func (w *world) Err() error   { return w.deadErr }

func (w *world) FlushError() error { return w.unflushed }

func (w *world) Close() error { w.note("close"); return w.closeErr }
func (w *world) stop() error  { w.note("stop"); return w.stopErr }

func (w *world) Pause(_ context.Context, owner livedisk.Owner) error {
	w.note("pause")
	w.paused = w.pauseErr == nil
	w.owner = owner
	return w.pauseErr
}

func (w *world) NewOwner() livedisk.Owner           { return 5 }
func (w *world) PausedBy(owner livedisk.Owner) bool { return w.paused && w.owner == owner }

func (w *world) Unpause(_ context.Context, owner livedisk.Owner, path string, _ []*os.File) error {
	w.note("unpause " + path)
	if owner != w.owner {
		w.note("of another")
	}
	w.paused = w.trouble != nil
	return w.trouble
}

func (w *world) Paused() bool   { return w.paused }
func (w *world) Trouble() error { return w.trouble }

func (w *world) story() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.diary, ", ")
}

// run starts the server of w in the bubble, and returns it with what ends it.
func (w *world) run() (s *Server, signals chan os.Signal, result chan error) {
	s = New(w, w, w.stop, slog.New(slog.DiscardHandler))
	signals, result = make(chan os.Signal, 4), make(chan error, 1)
	go func() { result <- s.Run(signals) }()
	return s, signals, result
}

func (w *world) want(t *testing.T, story string) {
	t.Helper()
	if got := w.story(); got != story {
		t.Errorf("what happened: %s\nwant           %s", got, story)
	}
}

func (s *Server) request(t *testing.T, op control.Op, lazy bool) control.Response {
	t.Helper()
	return s.Handle(t.Context(), control.Request{Op: op, Lazy: lazy})
}

func TestAnUnmountByHandClosesTheImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		_, _, result := w.run()
		w.end(nil)
		if err := <-result; err != nil {
			t.Error(err)
		}
		w.want(t, "stop, close")
	})
}

func TestAnUnmountRequestIsAnsweredWhenTheImageIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s, _, result := w.run()
		if r := s.request(t, control.Unmount, false); !reflect.DeepEqual(r, control.Response{Closed: true}) {
			t.Errorf("response %+v", r)
		}
		w.want(t, "detach, stop, close")
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
}

func TestAnUnmountRequestReportsTheLastFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.closeErr = errors.New("disk.vhd: input/output error")
		s, _, result := w.run()
		r := s.request(t, control.Unmount, false)
		if !r.Closed || r.Error != "closing: disk.vhd: input/output error" {
			t.Errorf("response %+v", r)
		}
		if err := <-result; !errors.Is(err, w.closeErr) {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestABusyDiskStaysAndSaysWhoHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.busy = true
		s, _, result := w.run()
		r := s.request(t, control.Unmount, false)
		if !r.Busy || r.Closed || !strings.Contains(r.Error, "less (pid 17)") {
			t.Errorf("response %+v", r)
		}
		if r := s.request(t, control.Status, false); r.State != control.Running {
			t.Errorf("status %+v", r)
		}
		w.leave()
		<-result
	})
}

func TestALazyUnmountOfABusyDiskIsPendingUntilItsLastUserLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.busy = true
		s, _, result := w.run()
		if r := s.request(t, control.Unmount, true); !reflect.DeepEqual(r, control.Response{Pending: true, State: control.Closing}) {
			t.Errorf("response %+v", r)
		}
		if r := s.request(t, control.Status, false); r.State != control.Closing {
			t.Errorf("status %+v", r)
		}
		w.want(t, "hide")
		w.leave()
		if err := <-result; err != nil {
			t.Error(err)
		}
		w.want(t, "hide, stop, close")
	})
}

func TestALazyUnmountOfAnIdleDiskIsAnsweredWhenTheImageIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s, _, result := w.run()
		if r := s.request(t, control.Unmount, true); !r.Closed || r.Pending {
			t.Errorf("response %+v", r)
		}
		<-result
	})
}

func TestADiskThatAnotherNamespaceHasMountedIsServedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.elsewhere = true
		s, signals, result := w.run()
		want := control.Response{Busy: true, Pending: true, Error: "the disk is in use: hidden here, but elsewhere"}
		for range 2 {
			if r := s.request(t, control.Unmount, false); !reflect.DeepEqual(r, want) {
				t.Errorf("response %+v", r)
			}
		}
		if r := s.request(t, control.Status, false); r.State != control.Closing {
			t.Errorf("status %+v", r)
		}
		signals <- unix.SIGTERM
		synctest.Wait()
		w.want(t, "detach here, detach here, detach here")
		w.leave()
		if err := <-result; err != nil {
			t.Error(err)
		}
		w.want(t, "detach here, detach here, detach here, stop, close")
	})
}

func TestADiskThatCantBeFlushedStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.flushErr = errors.New("no space left")
		s, _, result := w.run()
		r := s.request(t, control.Unmount, false)
		if r.Closed || r.Busy || r.Error != "no space left" {
			t.Errorf("response %+v", r)
		}
		w.leave()
		<-result
	})
}

func TestASignalTakesAnIdleDiskAway(t *testing.T) {
	for _, sig := range []os.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			_, signals, result := w.run()
			signals <- sig
			if err := <-result; err != nil {
				t.Error(err)
			}
			w.want(t, "detach, stop, close")
		})
	}
}

func TestASignalFlushesAndHidesABusyDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.busy = true
		_, signals, result := w.run()
		signals <- unix.SIGTERM
		synctest.Wait()
		w.want(t, "detach busy, flush, hide")
		w.leave()
		if err := <-result; err != nil {
			t.Error(err)
		}
		w.want(t, "detach busy, flush, hide, stop, close")
	})
}

func TestASecondSignalClosesTheImageOfABusyDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.busy = true
		_, signals, result := w.run()
		signals <- unix.SIGTERM
		synctest.Wait()
		signals <- unix.SIGTERM
		if err := <-result; err != nil {
			t.Error(err)
		}
		w.want(t, "detach busy, flush, hide, flush, stop, close")
		w.leave() // lets the goroutine at Wait go
	})
}

// TestSignalsOfAServerWhoseDiskSomebodyElseHid: umount -l by hand.
func TestSignalsOfAServerWhoseDiskSomebodyElseHid(t *testing.T) {
	for name, end := range map[string]func(*world, chan os.Signal){
		"its last user leaves": func(w *world, _ chan os.Signal) { w.leave() },
		"a second signal":      func(_ *world, signals chan os.Signal) { signals <- unix.SIGTERM },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.away, w.busy = true, true
				_, signals, result := w.run()
				signals <- unix.SIGTERM
				synctest.Wait()
				w.want(t, "detach waits")
				end(w, signals)
				if err := <-result; err != nil {
					t.Error(err)
				}
				if story := w.story(); !strings.HasSuffix(story, ", stop, close") {
					t.Errorf("what happened: %s", story)
				}
				w.end(nil) // lets the goroutine at Wait go
			})
		})
	}
}

// TestSignalsLoseNothingThatCanBeSaved: someone makes room in the end.
func TestSignalsLoseNothingThatCanBeSaved(t *testing.T) {
	for busy, end := range map[bool]string{false: "detach", true: "hide"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.busy, w.flushErr = busy, errors.New("no space left")
			s, signals, result := w.run()
			for range 3 {
				signals <- unix.SIGTERM
				synctest.Wait()
			}
			w.want(t, "detach refused, flush, flush, flush")
			if r := s.request(t, control.Status, false); r.State != control.Running {
				t.Errorf("status %+v, want it shown still", r)
			}
			w.flushErr = nil
			signals <- unix.SIGTERM
			if err := <-result; err != nil {
				t.Error(err)
			}
			w.want(t, "detach refused, flush, flush, flush, flush, "+end+", stop, close")
			w.end(nil) // lets the goroutine at Wait go
		})
	}
}

func TestASecondSignalEndsAServerWhoseDiskCanNeverBeFlushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.flushErr, w.closeErr = errors.New("input/output error"), errors.New("input/output error")
		w.deadErr = w.flushErr
		s, signals, result := w.run()
		signals <- unix.SIGTERM
		synctest.Wait()
		w.want(t, "detach refused, flush")
		if r := s.request(t, control.Status, false); r.State != control.ReadOnlyAfterError {
			t.Errorf("status %+v, want it shown still", r)
		}
		signals <- unix.SIGTERM
		if err := <-result; !errors.Is(err, w.closeErr) {
			t.Errorf("Run: %v", err)
		}
		w.want(t, "detach refused, flush, flush, hide unflushed, stop, close")
	})
}

func TestALazyUnmountTakesADiskAwayThatCantBeFlushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.flushErr, w.closeErr = errors.New("no space left"), errors.New("disk.vhd: no space left")
		s, _, result := w.run()
		if r := s.request(t, control.Unmount, true); !r.Closed || r.Pending || r.Error != "closing: disk.vhd: no space left" {
			t.Errorf("response %+v", r)
		}
		w.want(t, "hide unflushed, stop, close")
		if err := <-result; !errors.Is(err, w.closeErr) {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestALazyUnmountOfABusyDiskSaysThatItIsNotFlushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.busy, w.flushErr = true, errors.New("no space left")
		s, _, result := w.run()
		want := control.Response{Pending: true, State: control.Closing, Error: "not flushed: no space left"}
		if r := s.request(t, control.Unmount, true); !reflect.DeepEqual(r, want) {
			t.Errorf("response %+v", r)
		}
		if r := s.request(t, control.Status, false); r.State != control.Closing {
			t.Errorf("status %+v", r)
		}
		w.leave()
		if err := <-result; err != nil { // there was room in the end
			t.Error(err)
		}
		w.want(t, "hide unflushed, stop, close")
	})
}

// TestADiskThatIsGoneIsNotCalledMounted, although its last flush failed.
func TestADiskThatIsGoneIsNotCalledMounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.lastErr, w.closeErr = errors.New("input/output error"), errors.New("disk.vhd: input/output error")
		s, _, result := w.run()
		if r := s.request(t, control.Unmount, false); !r.Closed || r.Error != "closing: disk.vhd: input/output error" {
			t.Errorf("response %+v", r)
		}
		<-result
	})
}

func TestUnmountsThatMeetAllGetTheSameAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.closeErr = errors.New("input/output error")
		s, _, result := w.run()
		answers := make(chan control.Response, 3)
		for range cap(answers) {
			go func() { answers <- s.Handle(context.Background(), control.Request{Op: control.Unmount}) }()
		}
		for range cap(answers) {
			if r := <-answers; !r.Closed || r.Error != "closing: input/output error" {
				t.Errorf("response %+v", r)
			}
		}
		<-result
	})
}

func TestFlushRequest(t *testing.T) {
	w := newWorld()
	s := New(w, w, w.stop, slog.New(slog.DiscardHandler))
	if r := s.request(t, control.Flush, false); !reflect.DeepEqual(r, control.Response{}) {
		t.Errorf("response %+v", r)
	}
	w.flushErr = errors.New("no space left")
	if r := s.request(t, control.Flush, false); r.Error != "no space left" {
		t.Errorf("response %+v", r)
	}
	w.want(t, "flush, flush")
}

func TestStatusOfADeviceThatTurnedReadOnly(t *testing.T) {
	w := newWorld()
	w.deadErr = errors.New("a sync failed")
	s := New(w, w, w.stop, slog.New(slog.DiscardHandler))
	want := control.Response{State: control.ReadOnlyAfterError, Error: "a sync failed"}
	if r := s.request(t, control.Status, false); !reflect.DeepEqual(r, want) {
		t.Errorf("response %+v", r)
	}
}

func TestAnUnknownRequestIsAnError(t *testing.T) {
	w := newWorld()
	s := New(w, w, w.stop, slog.New(slog.DiscardHandler))
	if r := s.request(t, "reboot", false); r.Error != `unknown request "reboot"` {
		t.Errorf("response %+v", r)
	}
	w.want(t, "")
}

func TestEachCauseIsReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.stopErr, w.closeErr = errors.New("input/output error"), errors.New("input/output error")
		var log bytes.Buffer
		s := New(w, w, w.stop, slog.New(slog.NewTextHandler(&log, nil)))
		w.end(errors.New("connection cut"))
		err := s.Run(nil)
		if got, want := fmt.Sprint(err), "serving: connection cut; write-back: input/output error"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if n := strings.Count(log.String(), "level=ERROR"); n != 3 {
			t.Errorf("%d errors in the log, want all three:\n%s", n, &log)
		}
	})
}

func TestDistinctKeepsTheOrder(t *testing.T) {
	wrap := func(text string) error { return fmt.Errorf("step: %w", errors.New(text)) }
	err := distinct([]error{wrap("a"), wrap("b"), wrap("a"), wrap("c")})
	if got := strings.Split(err.Error(), "; "); !slices.Equal(got, []string{"step: a", "step: b", "step: c"}) {
		t.Errorf("got %q", got)
	}
	if distinct(nil) != nil {
		t.Error("an error of nothing")
	}
}

// TestASignalLeavesABlockDeviceInUseAlone: it is neither hidden nor given up,
// however many signals come, and goes when it is closed.
func TestASignalLeavesABlockDeviceInUseAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.busy = true
		var log bytes.Buffer
		s := New(w, w, w.stop, slog.New(slog.NewTextHandler(&log, nil)))
		s.NeverHide()
		signals, result := make(chan os.Signal, 4), make(chan error, 1)
		go func() { result <- s.Run(signals) }()
		for range 3 {
			signals <- unix.SIGTERM
			synctest.Wait()
		}
		if len(result) > 0 || !slices.Equal(w.detaches(), []string{"detach busy"}) {
			t.Fatalf("what happened: %s", w.story())
		}
		if n := strings.Count(log.String(), "not ended"); n != 1 || !strings.Contains(log.String(), frontend.ErrBusy.Error()) {
			t.Errorf("said %d times why: %s", n, log.String())
		}
		if r := s.request(t, control.Status, false); r.State != control.Running {
			t.Errorf("status %+v", r)
		}
		w.mu.Lock()
		w.busy = false
		w.mu.Unlock()
		if err := <-result; err != nil {
			t.Error(err)
		}
		if story := w.story(); strings.Contains(story, "lazy") || !strings.HasSuffix(story, "stop, close") {
			t.Errorf("what happened: %s", story)
		}
	})
}

// detaches are the entries of the diary that are about taking the disk away.
func (w *world) detaches() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, what := range w.diary {
		if strings.Contains(what, "detach") || strings.Contains(what, "hide") {
			out = append(out, what)
		}
	}
	return out
}

func TestAPausedDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s, _, result := w.run()
		if r := s.request(t, control.Pause, false); r.State != control.Paused || r.Error != "" || r.Token != 5 || string(r.Image) != w.Path() {
			t.Errorf("pause: %+v", r)
		}
		if r := s.request(t, control.Status, false); r.State != control.Paused {
			t.Errorf("status: %+v", r)
		}
		w.trouble = errors.New("b.vhd is gone")
		for _, op := range []control.Op{control.Unpause, control.Status} {
			if r := s.Handle(t.Context(), control.Request{Op: op, Token: 5}); r.State != control.Paused || r.Error != "b.vhd is gone" {
				t.Errorf("%s: %+v", op, r)
			}
		}
		w.trouble = nil
		r := s.Handle(t.Context(), control.Request{Op: control.Unpause, Token: 5, Image: "/b.vhd"})
		if r.State != control.Running || r.Error != "" {
			t.Errorf("unpause: %+v", r)
		}
		w.want(t, "pause, unpause , unpause /b.vhd")
		w.pauseErr = errors.New("can't flush")
		if r := s.request(t, control.Pause, false); r.State == control.Paused || r.Error != "can't flush" || r.Token != 0 {
			t.Errorf("pause that failed: %+v", r)
		}
		w.end(nil)
		<-result
	})
}

// TestAPausedBlockDeviceIsNotTakenAway: what waits for the end of the pause
// would be waited for.
func TestAPausedBlockDeviceIsNotTakenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s := New(w, w, w.stop, slog.New(slog.DiscardHandler))
		s.NeverHide()
		signals, result := make(chan os.Signal, 1), make(chan error, 1)
		go func() { result <- s.Run(signals) }()
		s.request(t, control.Pause, false)
		for _, lazy := range []bool{false, true} {
			if r := s.request(t, control.Unmount, lazy); !r.Busy || !strings.Contains(r.Error, "paused") {
				t.Errorf("unmount, lazy %v: %+v", lazy, r)
			}
		}
		if n := len(w.detaches()); n != 0 {
			t.Errorf("taken away while paused: %s", w.story())
		}
		s.Handle(t.Context(), control.Request{Op: control.Unpause, Token: 5})
		if r := s.request(t, control.Unmount, false); !r.Closed {
			t.Errorf("unmount: %+v", r)
		}
		<-result
	})
}

// TestTheStatusIsTheWorstThereIs to tell.
func TestTheStatusIsTheWorstThereIs(t *testing.T) {
	w := newWorld()
	s := New(w, w, w.stop, slog.New(slog.DiscardHandler))
	for _, step := range []struct {
		change func()
		want   control.Response
	}{
		{func() {}, control.Response{State: control.Running}},
		{func() { w.unflushed = errors.New("BAT: input/output error") }, control.Response{State: control.Failing, Error: "BAT: input/output error"}},
		{func() { w.paused = true }, control.Response{State: control.Paused}},
		{func() { w.deadErr = errors.New("a sync failed") }, control.Response{State: control.ReadOnlyAfterError, Error: "a sync failed"}},
		{func() { s.hidden.Store(true) }, control.Response{State: control.Closing}},
	} {
		step.change()
		if got := s.Handle(t.Context(), control.Request{Op: control.Status}); !reflect.DeepEqual(got, step.want) {
			t.Errorf("got %+v, want %+v", got, step.want)
		}
	}
}
