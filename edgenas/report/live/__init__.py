"""`edgenas watch`: what another program writes, on a page that updates by itself, or in the terminal."""
