package format

import (
	"math"
	"testing"
	"time"
)

func TestTime(t *testing.T) {
	tests := []struct {
		t    Time
		want string
	}{
		{0, "2000-01-01T00:00:00Z"},
		{1, "2000-01-01T00:00:01Z"},
		{421743440, "2013-05-13T06:57:20Z"},
		{math.MaxUint32, "2136-02-07T06:28:15Z"},
	}
	for _, tt := range tests {
		if tt.t.String() != tt.want {
			t.Errorf("%d is %v, want %v", uint32(tt.t), tt.t, tt.want)
		}
		if back := TimeOf(tt.t.Time()); back != tt.t {
			t.Errorf("%v comes back as %v", tt.t, back)
		}
	}
}

func TestTimeOf(t *testing.T) {
	east := time.FixedZone("east", 3*3600)
	tests := []struct {
		name string
		in   time.Time
		want Time
	}{
		{"cut to the second", time.Date(2000, 1, 1, 0, 0, 1, 999_999_999, time.UTC), 1},
		{"another zone", time.Date(2000, 1, 1, 3, 0, 5, 0, east), 5},
		{"before the epoch", time.Date(1999, 12, 31, 23, 59, 59, 0, time.UTC), 0},
		{"the zero time", time.Time{}, 0},
		{"past the end", time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC), math.MaxUint32},
	}
	for _, tt := range tests {
		if got := TimeOf(tt.in); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestInFuture(t *testing.T) {
	now := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	at := TimeOf(now)
	for ahead, want := range map[Time]bool{0: false, 1800: false, 1801: true} {
		if got := (at + ahead).InFuture(now); got != want {
			t.Errorf("%d s ahead: %v, want %v", ahead, got, want)
		}
	}
	if (at - 1).InFuture(now) {
		t.Error("the past is in the future")
	}
}
