package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pausable is the handler of a disk that can be paused, and its diary.
type pausable struct {
	mu      sync.Mutex
	diary   []string
	paused  bool
	refuse  int // how many unpauses fail
	content string
	changed chan struct{} // gets a token with each entry
}

func newPausable() *pausable { return &pausable{changed: make(chan struct{}, 100)} }

func (p *pausable) handle(_ context.Context, r Request) Response {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.diary = append(p.diary, strings.TrimSpace(string(r.Op)+" "+r.Image))
	if r.Op == Unpause && r.Token != 7 {
		p.diary = append(p.diary, "of another")
	}
	defer func() { p.changed <- struct{}{} }()
	switch {
	case r.Op == Pause && p.paused:
		return Response{State: Paused, Error: "it is paused"}
	case r.Op == Pause:
		p.paused = true
		return Response{State: Paused, Token: 7}
	case r.Op == Unpause && p.refuse > 0:
		p.refuse--
		return Response{State: Paused, Error: "not there"}
	case r.Op == Unpause:
		p.paused = false
		p.content = read(r.Files)
	}
	return Response{State: Running}
}

// read is what is in files, each of one byte.
func read(files []*os.File) string {
	var all []byte
	for _, f := range files {
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, 0); err != nil {
			return err.Error()
		}
		all = append(all, b[0])
	}
	return string(all)
}

func (p *pausable) want(t *testing.T, diary ...string) {
	t.Helper()
	for range diary {
		<-p.changed
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if got := fmt.Sprint(p.diary); got != fmt.Sprint(diary) {
		t.Errorf("asked: %s, want %s", got, diary)
	}
}

func dial(t *testing.T, path string) *Conversation {
	t.Helper()
	c, err := Dial(t.Context(), path)
	check(t, err)
	return c
}

func (c *Conversation) want(t *testing.T, r Request, state State, text string) {
	t.Helper()
	got, err := c.Do(t.Context(), r)
	if err != nil || got.State != state || got.Error != text {
		t.Errorf("%s: %+v, %v; want %s %q", r.Op, got, err, state, text)
	}
}

func TestAPauseLastsUntilTheUnpauseOfItsConversation(t *testing.T) {
	p := newPausable()
	p.refuse = 1
	c := dial(t, start(t, p.handle))
	defer c.Close()
	c.want(t, Request{Op: Pause}, Paused, "")
	c.want(t, Request{Op: Unpause, Image: "/gone.vhd"}, Paused, "not there")
	c.want(t, Request{Op: Unpause, Image: "/b\xff.vhd"}, Running, "")
	if _, err := c.Do(t.Context(), Request{Op: Status}); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("a request after the last: %v", err)
	}
	p.want(t, "pause", "unpause /gone.vhd", "unpause /b\xff.vhd")
}

func TestAPeerThatGoesAwayLeavesNoDiskPaused(t *testing.T) {
	for name, last := range map[string]string{"silently": "", "with nonsense": "{\n", "with another question": `{"op":"status"}` + "\n"} {
		t.Run(name, func(t *testing.T) {
			p := newPausable()
			c := dial(t, start(t, p.handle))
			c.want(t, Request{Op: Pause}, Paused, "")
			if last != "" {
				_, err := io.WriteString(c.conn, last)
				check(t, err)
			}
			check(t, c.Close())
			p.want(t, "pause", "unpause")
		})
	}
}

func TestAPauseThatWasRefusedIsNotEnded(t *testing.T) {
	p := newPausable()
	p.paused = true
	path := start(t, p.handle)
	c := dial(t, path)
	c.want(t, Request{Op: Pause}, Paused, "it is paused")
	check(t, c.Close())
	other := dial(t, path) // accepted after the first was served or beside it
	other.want(t, Request{Op: Status}, Running, "")
	check(t, other.Close())
	p.want(t, "pause", "status")
}

// TestADiskThatCannotGoOnTriesAgain: the image may come back.
func TestADiskThatCannotGoOnTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPausable()
		p.paused, p.refuse = true, 3
		s := &Server{handler: p.handle}
		s.ctx, s.cancel = context.WithCancel(t.Context())
		defer s.cancel()
		begin := time.Now()
		s.goOn(7)
		if took := time.Since(begin); p.paused || took != 3*retryInterval {
			t.Errorf("paused %v after %v", p.paused, took)
		}
	})
}

func TestFilesComeWithAnUnpause(t *testing.T) {
	for _, n := range []int{1, 3, maxRights, maxRights + 57} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			var files []*os.File
			want := ""
			for i := range n {
				f, err := os.Create(filepath.Join(t.TempDir(), "f"))
				check(t, err)
				defer f.Close()
				b := "abcdefghijklmnopqrstuvwxyz"[i%26 : i%26+1]
				_, err = f.WriteString(b)
				check(t, err)
				files, want = append(files, f), want+b
			}
			p := newPausable()
			c := dial(t, start(t, p.handle))
			defer c.Close()
			c.want(t, Request{Op: Pause}, Paused, "")
			before := descriptors(t)
			c.want(t, Request{Op: Unpause, Files: files}, Running, "")
			p.want(t, "pause", "unpause")
			if p.content != want {
				t.Errorf("files came as %q, want %q", p.content, want)
			}
			if _, err := c.Do(t.Context(), Request{Op: Status}); !errors.Is(err, ErrNoAnswer) { // the server has ended
				t.Error(err)
			}
			if after := descriptors(t); after > before {
				t.Errorf("%d descriptors, %d before", after, before)
			}
		})
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	return len(names)
}

func TestAFloodOfFilesIsRefused(t *testing.T) {
	p := newPausable()
	c := dial(t, start(t, p.handle))
	defer c.Close()
	f, err := os.Open("/dev/null")
	check(t, err)
	defer f.Close()
	flood := make([]*os.File, maxFiles+1)
	for i := range flood {
		flood[i] = f
	}
	line, err := json.Marshal(Request{Op: Pause})
	check(t, err)
	answer, err := c.exchange(append(line, '\n'), flood)
	if err == nil && !strings.Contains(string(answer), "301 files came with a request, 300 at most may") {
		t.Errorf("answer %s", answer)
	}
	if p.paused {
		t.Error("the request was heard")
	}
}
