package fuse

import (
	"encoding/binary"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

func TestInvalidatorJoinsWhatComesWhileItSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent [][]byte
		kernel := make(chan struct{})
		v := newInvalidator(func(msg []byte) error {
			<-kernel
			sent = append(sent, msg)
			return nil
		})
		var running sync.WaitGroup
		running.Go(v.run)
		v.add(7, 100, 200)
		synctest.Wait()
		for i := range int64(1000) { // while the first is on its way
			v.add(7, 4096*i, 4096*(i+1))
		}
		waited := false
		running.Go(func() { v.wait(); waited = true })
		kernel <- struct{}{}
		synctest.Wait()
		if waited {
			t.Error("wait returned before what was queued was sent")
		}
		kernel <- struct{}{}
		synctest.Wait()
		if !waited || !v.idle() {
			t.Errorf("waited: %v, idle: %v after all was sent", waited, v.idle())
		}
		want := [][]byte{invalidateMessage(7, extent{100, 200}), invalidateMessage(7, extent{0, 4096 * 1000})}
		if !slices.EqualFunc(sent, want, slices.Equal) {
			t.Errorf("sent %v, want %v", sent, want)
		}
		v.stop()
		running.Wait()
	})
}

func TestInvalidatorStopEndsWaiters(t *testing.T) {
	v := newInvalidator(nil) // never run
	v.add(1, 0, 1)
	var waiting sync.WaitGroup
	waiting.Go(v.wait)
	v.stop()
	waiting.Wait()
	v.wait()
}

func TestInvalidateMessageIsTheKernelsLayout(t *testing.T) {
	m := invalidateMessage(9, extent{4096, 12288})
	u32, u64 := binary.NativeEndian.Uint32, binary.NativeEndian.Uint64
	if len(m) != 40 || u32(m) != 40 || u32(m[4:]) != 2 || u64(m[8:]) != 0 || u64(m[16:]) != 9 || u64(m[24:]) != 4096 || u64(m[32:]) != 8192 {
		t.Errorf("% x", m)
	}
}
