//go:build !linux

package node

import "context"

// openLid: macOS tells it through IOKit and Windows to windows and services, which takes libraries or a window of their own.
func openLid(context.Context, string) (lid, error) { return nil, errNoLid }
