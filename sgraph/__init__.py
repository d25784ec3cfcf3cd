"""sgraph"""
