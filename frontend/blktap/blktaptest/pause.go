package blktaptest

import "golang.org/x/sys/unix"

// Pause is a write to the pause file of sysfs, which only openxt's module
// has: it stops the queue, waits for what is pending and for the server to say
// that it has paused. A second is nothing.
func (k *Kernel) Pause(path string) error {
	t, err := k.messaged(path)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.paused {
		return nil
	}
	t.stopped = true
	for t.count > 0 {
		t.changed.Wait()
	}
	if t.port == nil {
		return unix.ENODEV
	}
	t.say(messagePause)
	for !t.paused && t.port != nil {
		t.changed.Wait()
	}
	if t.port == nil {
		return unix.ENODEV
	}
	return nil
}

// Resume is a write to the resume file: it waits for the server, and is the
// errno with which that stays paused.
func (k *Kernel) Resume(path string) error {
	t, err := k.messaged(path)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.paused || t.port == nil {
		return unix.EINVAL
	}
	t.resumed = -1
	t.say(messageResume)
	for t.resumed < 0 && t.port != nil {
		t.changed.Wait()
	}
	if t.port == nil {
		return unix.ENODEV
	}
	if t.resumed > 0 {
		return unix.Errno(t.resumed)
	}
	t.stopped = false
	t.wakePoll()
	return nil
}

// messaged is the minor of a path, of a module that has messages.
func (k *Kernel) messaged(path string) (*tap, error) {
	if k.variant != OpenXT {
		return nil, unix.ENOENT
	}
	return k.byPath(path)
}

// answered is an ioctl by which the server answers a message.
func (t *tap) answered(do func(*tap)) error {
	if t.k.variant != OpenXT {
		return unix.ENOTTY
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.stopped {
		return unix.EINVAL
	}
	do(t)
	t.changed.Broadcast()
	return nil
}
