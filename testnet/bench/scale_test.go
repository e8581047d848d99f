package main

import (
	"testing"

	"github.com/shoal-os/shoal/testnet/scale"
)

// TestScaleMeasures has real hosts measured, a few.
func TestScaleMeasures(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits until real pools are settled, for half a minute")
	}
	var m scale.Measured
	if err := quickScaleRun().measure(t.Context(), t.TempDir(), &m, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if len(m.Pools) != 2 || len(m.Tables) != 2 {
		t.Errorf("%+v", m)
	}
	for _, p := range m.Pools {
		if p.Gossip.Delivered != 1 || p.Gossip.Copies < 1 || p.Records.Bytes <= 0 || len(p.Idle) == 0 || p.IdleCPU <= 0 || p.Memory <= 0 {
			t.Errorf("%+v", p)
		}
	}
	for _, k := range m.Tables {
		if k.Found != 1 || k.Find.Asked < 1 || k.Find.Asked > float64(3*k.Peers) || k.Provide.Asked < k.Find.Asked || k.Find.Bytes <= 0 {
			t.Errorf("%+v", k)
		}
	}
}
