package repair

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	uptimeFile = "uptime"
	// uptimeSpan is how far back a peer's uptime looks: what is older counts less and less.
	uptimeSpan = 30 * 24 * time.Hour
	// uptimeTrust is for how long a new peer counts as there half of the time, whatever it does.
	uptimeTrust = 7 * 24 * time.Hour
	// uptimeStep is the width of a class in per cent, uptimeSlack by how much a peer must pass the border of its class to
	// come into another: each change of class moves pieces.
	uptimeStep, uptimeSlack = 10, 3
	// uptimeSaveEvery is how often it is written down.
	uptimeSaveEvery = 10 * time.Minute
)

// uptime is for how much of the time this peer is there. It counts what it was awake for itself, by the wall clock; who
// lies about it gets more of the pool's pieces, and is found away.
type uptime struct {
	mu    sync.Mutex
	s     uptimeState
	saved time.Time
}

type uptimeState struct {
	At    time.Time     `json:"at"`    // until when it is counted
	Up    time.Duration `json:"up"`    // decayed
	Total time.Duration `json:"total"` // decayed
	Class uint8         `json:"class"` // published last
}

// open reads the file. One that cannot be read is begun anew: it holds nothing that does not grow again.
func (u *uptime) open(cfg Config) {
	u.s = uptimeState{At: cfg.Now(), Up: uptimeTrust / 2, Total: uptimeTrust, Class: 50}
	raw, err := os.ReadFile(filepath.Join(cfg.Dir, uptimeFile))
	var s uptimeState
	if err == nil && json.Unmarshal(raw, &s) == nil && s.Up >= 0 && s.Total >= s.Up && s.Class <= 100 {
		u.s = s
	}
	u.count(cfg, true) // since the last time it was off
}

// count adds the time since the last call, during which the peer was there, or off.
func (u *uptime) count(cfg Config, off bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := cfg.Now()
	passed := now.Sub(u.s.At)
	u.s.At = now
	if passed <= 0 || passed > uptimeSpan {
		passed = min(max(passed, 0), uptimeSpan) // a clock that was set says nothing
	}
	decay := math.Exp(-float64(passed) / float64(uptimeSpan))
	u.s.Up = time.Duration(float64(u.s.Up) * decay)
	u.s.Total = time.Duration(float64(u.s.Total)*decay) + passed
	if !off {
		u.s.Up += passed
	}
	u.s.Class = classOf(u.s.Up, u.s.Total, u.s.Class)
	if now.Sub(u.saved) >= uptimeSaveEvery || now.Before(u.saved) {
		u.saveLocked(cfg)
	}
}

// classOf is the class of a share, with hysteresis.
func classOf(up, total time.Duration, was uint8) uint8 {
	if total <= 0 {
		return was
	}
	share := 100 * float64(up) / float64(total)
	if math.Abs(share-float64(was)) < uptimeStep/2+uptimeSlack {
		return was
	}
	return uint8(min(100, uptimeStep*math.Round(share/uptimeStep)))
}

// class is the peer's uptime in per cent, a multiple of ten.
func (u *uptime) class() uint8 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.s.Class
}

func (u *uptime) save(cfg Config) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.saveLocked(cfg)
}

// saveLocked writes the file, all or nothing; that it may be a little old does not matter.
func (u *uptime) saveLocked(cfg Config) {
	u.saved = u.s.At
	writeJSON(filepath.Join(cfg.Dir, uptimeFile), u.s)
}

// writeJSON replaces a small file. Failing is no harm: the file is one that can be lost.
func writeJSON(path string, v any) {
	raw, err := json.Marshal(v)
	if err == nil {
		err = os.WriteFile(path+".tmp", raw, 0o600)
	}
	if err == nil {
		_ = os.Rename(path+".tmp", path)
	}
}
