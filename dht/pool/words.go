package pool

import "strings"

// checkWords is how many words two people compare. Each stands for six bits; to be let in unseen with a stolen ticket, a
// thief would have to make the same 24 bits come out without knowing the other's nonce, in one attempt per nonce of the
// inviter's.
const checkWords = 4

// wordList has 64 words that are short, unlike each other by ear and by eye, and plain in most people's English.
var wordList = strings.Fields(`
	apple badge cabin daisy eagle fable giant honey igloo jelly koala lemon mango night olive piano
	queen river sugar tiger uncle violin wagon yacht zebra anchor bottle candle dragon engine forest garden
	hammer island jacket kettle ladder mirror needle orange pencil quarry rocket saddle tunnel umbrella velvet window
	almond butter copper desert ember falcon guitar hockey insect jungle kitten lobster marble nickel oyster pepper`)

// words turns a key into check words.
func words(key [32]byte) string {
	out := make([]string, checkWords)
	for i := range out {
		out[i] = wordList[key[i]%64]
	}
	return strings.Join(out, " ")
}
