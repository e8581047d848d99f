//go:build !linux

package main

import "os"

// Elsewhere processor time and memory are not measured; the table shows a dash.

func ownCPU() float64        { return 0 }
func ownRSS() int64          { return 0 }
func peakRSS(int) int64      { return 0 }
func processCPU(int) float64 { return 0 }
func settle()                {}

func waitedRSS(*os.ProcessState) int64 { return 0 }

func spreadFolders(string) {}
