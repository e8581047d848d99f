package mount

// GoodXML lets the tests of the whole face use what checks the bodies of requests.
func GoodXML(b []byte) bool { return checkXML(b) == nil }
