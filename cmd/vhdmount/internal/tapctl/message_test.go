package tapctl

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
)

// golden are messages as a C compiler lays them out, from the structures in
// tapdisk-message.h of xapi-project/blktap: of 2024, and for open-2010s of
// 2010.
func golden(tb testing.TB) map[string]Message {
	tb.Helper()
	params := Params{
		Flags: FlagReadOnly | FlagSecondary, Devnum: 5, DomID: 7, Path: "vhd:/srv/disk.vhd",
		ParentDevnum: 0xffffffff, Secondary: "aio:/srv/second",
	}
	older, newer := params, params
	older.Layout, older.Storage = Layout2010s, 3
	newer.Timeout = 40
	return map[string]Message{
		"open-2010s":    made(tb, TypeOpen, 5, func(m *Message) error { return m.SetParams(older) }),
		"open-2020s":    made(tb, TypeOpen, 5, func(m *Message) error { return m.SetParams(newer) }),
		"open-response": made(tb, TypeOpenResponse, 5, func(m *Message) error { m.SetImage(Image{0x123456789a, 512, InfoReadOnly}); return nil }),
		"error":         made(tb, TypeError, 5, func(m *Message) error { m.SetResponse(Response{syscall.EBUSY, "in use"}); return nil }),
		"minors":        made(tb, TypeListMinorsResponse, AllMinors, func(m *Message) error { return m.SetMinors([]int{0, 7, 16383}) }),
		"list": made(tb, TypeListResponse, AllMinors, func(m *Message) error {
			m.SetListEntry(ListEntry{Count: 2, Minor: -1, State: StatePaused, Path: "vhd:/srv/disk.vhd"})
			return nil
		}),
		"stats": made(tb, TypeStatsResponse, 5, func(m *Message) error { m.SetStatsLength(1234567); return nil }),
		"pid":   made(tb, TypePIDResponse, 0, func(m *Message) error { m.SetPID(4711); return nil }),
	}
}

func made(tb testing.TB, t Type, cookie uint16, set func(*Message) error) Message {
	tb.Helper()
	m := Message{Type: t, Cookie: cookie}
	if err := set(&m); err != nil {
		tb.Fatal(err)
	}
	return m
}

func goldenBytes(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".message"))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestMessagesAreLaidOutAsTheCCompilerDoes(t *testing.T) {
	for name, m := range golden(t) {
		want := goldenBytes(t, name)
		if got := m.Append(nil); !bytes.Equal(got, want) {
			t.Errorf("%s: encoded\n%x\nwant\n%x", name, got, want)
		}
		if got, err := Decode(want); err != nil || got != m {
			t.Errorf("%s: decoded %+v, %v\nwant %+v", name, got, err, m)
		}
	}
}

func TestRecordsReadBack(t *testing.T) {
	g := golden(t)
	at := func(name string) *Message { m := g[name]; return &m }
	for _, name := range []string{"open-2010s", "open-2020s"} {
		p, err := at(name).Params()
		if err != nil || p.Path != "vhd:/srv/disk.vhd" || p.Secondary != "aio:/srv/second" || p.Devnum != 5 || p.DomID != 7 ||
			p.ParentDevnum != 0xffffffff || p.Flags != FlagReadOnly|FlagSecondary || "open-"+p.Layout.String() != name ||
			p.Layout == Layout2010s && p.Storage != 3 || p.Layout == Layout2020s && p.Timeout != 40 {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	if got := at("open-response").Image(); got != (Image{0x123456789a, 512, 4}) {
		t.Errorf("image: %+v", got)
	}
	if got, err := at("error").Response(); err != nil || got != (Response{syscall.EBUSY, "in use"}) {
		t.Errorf("response: %+v, %v", got, err)
	}
	if got, err := at("minors").Minors(); err != nil || len(got) != 3 || got[1] != 7 || got[2] != 16383 {
		t.Errorf("minors: %v, %v", got, err)
	}
	if got, err := at("list").ListEntry(); err != nil || got != (ListEntry{2, -1, 0x2a, "vhd:/srv/disk.vhd"}) {
		t.Errorf("list: %+v, %v", got, err)
	}
	if got := at("stats").StatsLength(); got != 1234567 {
		t.Errorf("length of the statistics: %d", got)
	}
	if got := at("pid").PID(); got != 4711 {
		t.Errorf("pid: %d", got)
	}
}

// TestLayoutIsToldByWhereThePathBegins goes over what may stand around it.
func TestLayoutIsToldByWhereThePathBegins(t *testing.T) {
	for _, path := range []string{"vhd:/d", "aio:/dev/sda:1", "vhd:a:b", "x:/", "tapdisk:/" + strings.Repeat("x", 200), "/no/driver", "", "vhd:"} {
		for _, secondary := range []string{"", "vhd:/second"} {
			for _, domid := range []uint32{0, 1, 255, 32767} {
				for _, layout := range []Layout{Layout2010s, Layout2020s} {
					p := Params{Layout: layout, Path: path, Secondary: secondary, DomID: domid, Flags: FlagShared}
					m := made(t, TypeOpen, 1, func(m *Message) error { return m.SetParams(p) })
					got, err := m.Params()
					if path == "" && (secondary == "" || domid != 0) {
						continue // no path: either layout may come out
					}
					if err != nil || got != p {
						t.Errorf("%v, %q, %q, domain %d: got %+v, %v", layout, path, secondary, domid, got, err)
					}
				}
			}
		}
	}
}

// TestUnpauseWithoutAPathHasNone: where no path is, none is read from another
// field, in either layout.
func TestUnpauseWithoutAPathHasNone(t *testing.T) {
	for _, layout := range []Layout{Layout2010s, Layout2020s} {
		for _, secondary := range []string{"", "vhd:/second"} {
			m := made(t, TypeResume, 1, func(m *Message) error { return m.SetParams(Params{Layout: layout, Secondary: secondary}) })
			if p, err := m.Params(); err != nil || p.Path != "" || p.Secondary != secondary {
				t.Errorf("%v, %q: %+v, %v", layout, secondary, p, err)
			}
		}
	}
}

func TestThePathMayHave255Bytes(t *testing.T) {
	path := "vhd:/" + strings.Repeat("x", PathMax-5)
	for _, layout := range []Layout{Layout2010s, Layout2020s} {
		m := made(t, TypeOpen, 1, func(m *Message) error { return m.SetParams(Params{Layout: layout, Path: path, Secondary: path}) })
		if p, err := m.Params(); err != nil || p.Path != path || p.Secondary != path {
			t.Errorf("%v: %+v, %v", layout, p, err)
		}
		before := m
		for _, p := range []Params{{Layout: layout, Path: path + "x"}, {Layout: layout, Secondary: path + "x"}} {
			if err := m.SetParams(p); !errors.Is(err, ErrTooLong) || !strings.Contains(err.Error(), "256 bytes, a message has room for 255") {
				t.Errorf("%v: a byte more: %v", layout, err)
			}
		}
		if m != before {
			t.Errorf("%v: the message changed", layout)
		}
	}
}

func TestTextsWithoutAnEndAreRefused(t *testing.T) {
	full := strings.Repeat("v", MessageSize)
	m, err := Decode([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Params(); !errors.Is(err, ErrNotTerminated) {
		t.Errorf("params: %v", err)
	}
	if _, err := m.Response(); !errors.Is(err, ErrNotTerminated) {
		t.Errorf("response: %v", err)
	}
	if _, err := m.ListEntry(); !errors.Is(err, ErrNotTerminated) {
		t.Errorf("list: %v", err)
	}
	m.SetResponse(Response{syscall.EIO, full})
	if r, err := m.Response(); err != nil || r.Message != full[:PathMax] {
		t.Errorf("a message that is too long: %q, %v", r.Message, err)
	}
	m.SetListEntry(ListEntry{Count: 1, Path: full})
	if e, err := m.ListEntry(); err != nil || e.Path != full[:PathMax] {
		t.Errorf("a path that is too long: %q, %v", e.Path, err)
	}
}

func TestCountsAreBounded(t *testing.T) {
	var m Message
	if err := m.SetMinors(make([]int, MinorsMax)); err != nil {
		t.Errorf("%d minors: %v", MinorsMax, err)
	}
	if got, err := m.Minors(); err != nil || len(got) != MinorsMax {
		t.Errorf("%d minors read back: %v, %v", MinorsMax, got, err)
	}
	if err := m.SetMinors(make([]int, MinorsMax+1)); !errors.Is(err, ErrCount) {
		t.Errorf("a minor more: %v", err)
	}
	for _, n := range []uint32{MinorsMax + 1, 0x7fffffff, 0xffffffff} {
		put32(&m.union, minorsCountAt, n)
		if got, err := m.Minors(); !errors.Is(err, ErrCount) {
			t.Errorf("count %d: %v, %v", int32(n), got, err)
		}
	}
	put32(&m.union, listCountAt, 0xffffffff)
	if _, err := m.ListEntry(); !errors.Is(err, ErrCount) {
		t.Errorf("-1 disks: %v", err)
	}
}

func TestErrnoIsReadWithEitherSign(t *testing.T) {
	var m Message
	for raw, want := range map[int32]syscall.Errno{16: 16, -16: 16, 0: 0, -1 << 31: 1 << 31} {
		put32(&m.union, responseErrorAt, uint32(raw))
		if r, err := m.Response(); err != nil || r.Errno != want {
			t.Errorf("%d: %d, %v", raw, r.Errno, err)
		}
	}
}

func TestMessagesOnAStream(t *testing.T) {
	g := golden(t)
	var stream bytes.Buffer
	for _, name := range []string{"pid", "list", "error"} {
		if err := WriteMessage(&stream, g[name]); err != nil {
			t.Fatal(err)
		}
	}
	whole := bytes.Clone(stream.Bytes())
	r := iotest.OneByteReader(&stream)
	for _, name := range []string{"pid", "list", "error"} {
		if m, err := ReadMessage(r); err != nil || m != g[name] {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	if _, err := ReadMessage(r); err != io.EOF {
		t.Errorf("after the last: %v, want io.EOF", err)
	}
	for _, n := range []int{1, 8, MessageSize - 1} {
		if _, err := ReadMessage(bytes.NewReader(whole[:n])); !errors.Is(err, ErrCutShort) {
			t.Errorf("%d bytes: %v", n, err)
		}
		if _, err := Decode(whole[:n]); !errors.Is(err, ErrCutShort) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if _, err := ReadMessage(iotest.ErrReader(syscall.ECONNRESET)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a broken stream: %v", err)
	}
}

func TestTypesHaveTheirNames(t *testing.T) {
	for typ, want := range map[Type]string{TypeAttach: "attach", TypeStatsResponse: "stats response", TypeExit: "exit", 0: "type 0", 31: "type 31", 0xffff: "type 65535"} {
		if got := typ.String(); got != want {
			t.Errorf("%d: %q, want %q", uint16(typ), got, want)
		}
	}
	for typ := TypeError; typ <= TypeExit; typ++ {
		if !typ.Known() || typ.String() == "" {
			t.Errorf("type %d: known %v, name %q", uint16(typ), typ.Known(), typ)
		}
	}
	if Type(0).Known() || Type(31).Known() {
		t.Error("a type that isn't there is known")
	}
}

// FuzzMessage: whatever the bytes, no record panics, what is read is bounded,
// and what can be read is written back as it was.
func FuzzMessage(f *testing.F) {
	for name := range golden(f) {
		f.Add(goldenBytes(f, name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			if len(b) >= MessageSize || !errors.Is(err, ErrCutShort) {
				t.Fatalf("%d bytes: %v", len(b), err)
			}
			return
		}
		again, err := Decode(m.Append(nil))
		if err != nil || again != m {
			t.Fatalf("written and read: %+v, %v\nwas %+v", again, err, m)
		}
		if p, err := m.Params(); err == nil {
			if len(p.Path) > PathMax || len(p.Secondary) > PathMax {
				t.Errorf("%+v", p)
			}
			again := m
			if err := again.SetParams(p); err != nil {
				t.Errorf("%+v: %v", p, err)
			} else if q, err := again.Params(); err != nil || q.Path != p.Path || q.Secondary != p.Secondary || q.Flags != p.Flags {
				t.Errorf("%+v, %v\nwas %+v", q, err, p)
			}
		}
		if e, err := m.ListEntry(); err == nil && (len(e.Path) > PathMax || e.Count < 0) {
			t.Errorf("%+v", e)
		}
		if minors, err := m.Minors(); err == nil && len(minors) > MinorsMax {
			t.Errorf("%d minors", len(minors))
		}
		if r, err := m.Response(); err == nil && len(r.Message) > PathMax {
			t.Errorf("%+v", r)
		}
		_, _, _, _ = m.Image(), m.PID(), m.StatsLength(), m.Type.String()
	})
}
